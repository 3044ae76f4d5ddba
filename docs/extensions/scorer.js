// The scores of Sphinx's search, but a title with all of the words searched comes first.
var Scorer = {
  score: ([, title, , description, score]) => {
    const query = new URLSearchParams(window.location.search).get("q") ?? "";
    const words = query.toLowerCase().split(/\s+/);
    // Objects have a description, pages and sections have none.
    const named = words.every((word) => title.toLowerCase().includes(word));
    return named && description === null ? score + 15 : score;
  },
  objNameMatch: 11,
  objPartialMatch: 6,
  objPrio: { 0: 15, 1: 5, 2: -5 },
  objPrioDefault: 0,
  title: 15,
  partialTitle: 7,
  term: 5,
  partialTerm: 2,
};
