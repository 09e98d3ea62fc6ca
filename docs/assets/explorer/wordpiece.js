// From the characters of a text to the ids that the model reads: lesson 02b in JavaScript.
// Every rule is that of BERT's tokenizer, as the library `tokenizers` has it.

const LONGEST_WORD = 100; // characters; a longer word is unknown
const CHINESE = [
  [0x4e00, 0x9fff], [0x3400, 0x4dbf], [0x20000, 0x2a6df], [0x2a700, 0x2b73f],
  [0x2b740, 0x2b81f], [0x2b920, 0x2ceaf], [0xf900, 0xfaff], [0x2f800, 0x2fa1f],
];
const ASCII_PUNCTUATION = /[!-/:-@[-`{-~]/;
const isPunctuation = c => ASCII_PUNCTUATION.test(c) || /\p{P}/u.test(c);
const isChinese = c => CHINESE.some(([a, b]) => c.codePointAt(0) >= a && c.codePointAt(0) <= b);

function clean(text) { // no control characters, every white space a space, Chinese words apart
  let out = "";
  for (const c of text) {
    if ("\t\n\r".includes(c)) out += " ";
    else if (c === "\ufffd" || /[\p{Cc}\p{Cf}\p{Co}]/u.test(c)) continue;
    else if (/\p{White_Space}/u.test(c)) out += " ";
    else out += isChinese(c) ? ` ${c} ` : c;
  }
  return out;
}

function lowered(text) { // without accents; each character for itself, as a final sigma shows
  const bare = text.normalize("NFD").replace(/\p{Mn}/gu, "");
  return [...bare].map(c => c.toLowerCase()).join("");
}

export function splitWords(text) { // runs of letters, and each punctuation mark alone
  const words = [];
  let open = false; // whether the next character belongs to the last word
  for (const c of lowered(clean(text))) {
    const alone = isPunctuation(c), space = /\p{White_Space}/u.test(c);
    if (open && !alone && !space) words[words.length - 1] += c;
    else if (!space) words.push(c);
    open = !alone && !space;
  }
  return words;
}

export class WordPiece {
  constructor(vocabulary) { // all tokens in the order of their ids
    this.tokens = vocabulary;
    this.ids = new Map(vocabulary.map((token, id) => [token, id]));
    this.special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"];
    [this.start, this.pad, this.end, this.unknown, this.mask] =
      this.special.map(token => this.ids.get(token));
  }

  pieces(word) { // the longest piece that the vocabulary has, and so on with the rest
    const characters = [...word], found = [];
    if (characters.length > LONGEST_WORD) return [this.unknown];
    for (let at = 0; at < characters.length;) {
      let end = characters.length, id;
      for (; end > at && id === undefined; end -= id === undefined) {
        id = this.ids.get((at ? "##" : "") + characters.slice(at, end).join(""));
      }
      if (id === undefined) return [this.unknown];
      found.push(id);
      at = end;
    }
    return found;
  }

  words(text) { // [{text, ids}], one for each word; what reads as a special token is one
    const parts = text.split(/(<s>|<pad>|<\/s>|<unk>|<mask>)/);
    return parts.flatMap((part, i) => i % 2
      ? [{text: part, ids: [this.ids.get(part)]}]
      : splitWords(part).map(word => ({text: word, ids: this.pieces(word)})));
  }

  encode(text, longest) { // ids between <s> and </s>, at most so many
    const ids = this.words(text).flatMap(word => word.ids);
    return [this.start, ...ids.slice(0, longest - 2), this.end];
  }
}
