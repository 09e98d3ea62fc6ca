// The site's search: which fields count how much, stems, typing errors, and other words for the same thing.
{
  const {MiniSearch, stemmer} = searchLibraries;

  // What people type, and the words of these pages for it.
  const SYNONYMS = [
    [/\boom\b|\bout[- ]of[- ]memory\b|\bmemory error\b/, "out of memory"],
    [/\bbf16\b|\bfp16\b|\bamp\b|\bmixed[- ]precision\b|\bhalf precision\b/, "bfloat16 precision"],
    [/\bbatch size\b/, "batch-size global micro-batch"],
    [/\bmulti[- ]?gpus?\b|\bddp\b|\bdistributed\b|\bseveral gpus\b/, "ranks many gpus torchrun"],
    [/\binstall(ing|ation)?\b|\bset ?up\b/, "install two commands"],
    [/\bcolab\b|\bkaggle\b/, "notebook colab"],
    [/\bcontinu(e|ed|ing) (pre)?train(ing)?\b|\bdomain[- ]adapt\w*\b/, "starting hf-model-path"],
    [/\bfine[- ]?tun(e|ing)\b/, "fine-tuning"],
    [/\bgradient accumulation\b|\baccumulate\b/, "accumulation update-freq"],
    [/\blr\b/, "learning rate"],
    [/\bepochs?\b/, "epoch"],
    [/\bcrash(es|ed)?\b|\bkilled\b|\bpreempt\w*\b/, "interrupted resume signal"],
    [/\bcheckpointing\b/, "gradient checkpointing memory"],
    [/\bhugging ?face\b|\bhf\b/, "transformers"],
    [/\bsentence[- ]transformers?\b|\bembeddings? of sentences\b/, "sentence embeddings"],
    [/\bsbert\b/, "sentence embeddings"],
    [/\bcitation\b|\bcite\b/, "citation"],
    [/\bflash[- ]?attention\b|\bsdpa\b/, "fast attention sdpa flex"],
    [/\bdedup\w*\b/, "near duplicates minhash"],
    [/\bwandb\b/, "weights biases"],
    [/\btokens (per|a) second\b|\bthroughput\b/, "tokens_per_second"],
    [/\bdivid\w* the model\b|\bfsdp\b|\bsharded\b/, "sharding fsdp"],
    [/\bnot (go|going) down\b|\bplateaus?\b|\bstuck\b|\bdiverg\w*\b/, "loss doesn't fall"],
    [/\bhyper-?parameters?\b|\boptions?\b|\bflags?\b/, "arguments"],
    [/\bspeed\b|\bfaster\b|\bslow\b/, "fast slow"],
    [/\bbenchmark\w*\b/, "benchmarks measured"],
    [/\bjapanese\b|\bchinese\b|\bthai\b|\bnon-english\b|\blanguages?\b/, "scripts without spaces words language"],
  ];
  const STOP = new Set(("a an and are as at be by can do does for from get how i in is it my of on or "
    + "should so that the their there this to want what when where which who why will with you your").split(" "));

  // A name counts whole and in its parts: two_stream_mask; two, stream, mask.
  function tokenize(text) {
    const names = text.toLowerCase().split(/[^\p{L}\p{N}_-]+/u).map(name => name.replace(/^[-_]+|[-_]+$/g, ""));
    return names.flatMap(name => /[-_]/.test(name) ? [name, ...name.split(/[-_]+/)] : [name]).filter(Boolean);
  }
  const processTerm = term => STOP.has(term) ? null : /[-_\d]/.test(term) ? term : stemmer(term);

  const plain = text => text.trim().toLowerCase().replace(/^-+/, "");
  const isName = entry => entry.k === "argument" || entry.k === "reference";

  // Names and headings that are the query come first, then a place that defines it (in italics or bold).
  function boostDocument(whole) {
    return (id, term, entry) => {
      const heading = plain(entry.h || entry.t);
      const exact = heading === whole ? (isName(entry) ? 30 : 6) : 1;
      const said = term => term === whole || (term.includes(" ") && whole.includes(term));
      const defines = entry.e.some(said) ? 3 : 1;
      // The teachers' page repeats what the lessons say.
      const words = isName(entry) ? 0.5 : entry.u.startsWith("docs/teachers") ? 0.3 : 1;
      return exact * defines * words;
    };
  }

  // A place that has all the words of the query comes before one that has a part of them.
  function complete(results, terms) {
    const share = result => Math.min(1, result.queryTerms.filter(term => terms.has(term)).length / terms.size);
    return results.map(result => ({...result, score: result.score * (0.2 + share(result) ** 2)}))
      .sort((a, b) => b.score - a.score);
  }

  // At most two places of a page before all others.
  function mixed(results) {
    const times = new Map();
    const count = page => times.set(page, (times.get(page) || 0) + 1).get(page);
    const late = results.map(result => count(result.u.split("#")[0]) > 2);
    return [...results.filter((_, i) => !late[i]), ...results.filter((_, i) => late[i])];
  }

  window.makeSearch = entries => {
    const index = new MiniSearch({
      fields: ["h", "t", "e", "x", "c"], storeFields: ["u", "t", "h", "k", "x", "e"], tokenize, processTerm,
    });
    index.addAll(entries.map((entry, id) => ({id, ...entry})));
    return query => {
      const whole = plain(query);
      const others = SYNONYMS.filter(([said]) => said.test(whole)).map(([, meant]) => meant).join(" ");
      const options = {
        boost: {h: 6, t: 3, e: 3, x: 1, c: 0.2}, prefix: term => term.length > 2 && 1,
        fuzzy: term => term.length > 4 ? 0.3 : false, weights: {fuzzy: 0.3, prefix: 0.5},
        boostDocument: boostDocument(whole),
      };
      const queries = others ? [whole, {queries: [others], combineWith: "OR", boostTerm: () => 0.8}] : [whole];
      const terms = new Set(tokenize(whole).map(processTerm).filter(Boolean));
      return mixed(complete(index.search({combineWith: "OR", queries}, options), terms));
    };
  };
}
