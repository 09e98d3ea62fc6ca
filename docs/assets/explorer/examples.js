// Sentences to begin with, found by a search through the passages that were held out from the
// training of the model, and chosen for what they show. `hidden` holds the numbers of words, from
// 0, where a punctuation mark is a word; `clash` marks those where MLM's best words don't go
// together. The last one is best predicted by PLM.

export const EXAMPLES = [
  {text: "If the target directory already exists, raise an OSError.", hidden: [1, 2], clash: true},
  {text: "This routine should be called exactly once.", hidden: [2, 3, 4], clash: true},
  {text: "The return value is a list of month rows.", hidden: [4, 5, 6]},
  {text: "Return None if there is no more available.", hidden: [2, 3, 4], clash: true},
  {text: "Specifically, directories are not considered resources.", hidden: [3, 4], clash: true},
  {text: "Return the loader for the specified module.", hidden: [4, 5], clash: true},
  {text: "Returns None if the given object does not have a docstring.", hidden: [3, 4, 5]},
  {text: "The task is sentence classification.", hidden: [3, 4]},
  {text: "They will not necessarily be scheduled in the same order as passed in.",
    hidden: [10, 11, 12]},
];

export const CHALLENGES = [ // each hidden word is one token
  {text: "This routine should be called exactly once.", hidden: [3, 4]},
  {text: "Return a list of modules that appear to be missing.", hidden: [2, 7]},
  {text: "Returns True if the event loop is running.", hidden: [2, 5]},
  {text: "The return value is a list of month rows.", hidden: [2, 5]},
  {text: "If None, then there is no limit on the wait time.", hidden: [4, 6]},
  {text: "Write a sequence of byte strings to the file.", hidden: [2, 8]},
  {text: "The arguments are the same as for break.", hidden: [4, 5]},
  {text: "Return None if there is no more available.", hidden: [1, 5]},
];
