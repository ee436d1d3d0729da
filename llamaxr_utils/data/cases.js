"use strict";
// Text reaches the page as text nodes only: nothing of a report is markup.
const page = JSON.parse(document.getElementById("data").textContent);
const WORDS = {
  agree: "agree", missed: "missed", added: "added",
  contradicts: "contradicts", only: "only this text has it",
};
const $ = (id) => document.getElementById(id);
const make = (tag, attributes = {}, ...children) => {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes))
    node.setAttribute(name, value);
  node.append(...children);
  return node;
};
const sign = (verdict) =>
  make("b", { class: `sign ${verdict}`, title: WORDS[verdict] },
    page.marks[verdict]);

// --- one study ---------------------------------------------------------------

function film(study, view, kind) {
  const source = study[kind][view];
  const of = kind === "heat" ? study.heatof[view] : "";
  const name = kind === "heat" ? `${view}, heatmap: ${of}` : view;
  const box = make("div");
  if (source) box.append(make("img", { src: source, decoding: "async",
    loading: "lazy", alt: `${study.id}, ${name}` }));
  else box.append("not available");
  return make("figure", {}, box, make("figcaption", {}, name));
}

function bars(study) {
  const box = make("div", { class: "bars" });
  page.conditions.forEach((name, i) => {
    const track = make("div", { class: "track" });
    const shown = [];
    for (const view of ["frontal", "lateral"]) {
      const value = study.scores[view] ? study.scores[view][i] : null;
      const bar = make("i");
      bar.style.width = `${100 * (value ?? 0)}%`;
      track.append(bar);
      shown.push(value === null ? "–" : value.toFixed(2));
    }
    if (page.points[i] <= 1) {
      const tick = make("b");
      tick.style.left = `${100 * page.points[i]}%`;
      track.append(tick);
    }
    const named = study.named.includes(i);
    box.append(
      make("span", named ? { class: "named" } : {}, named ? `${name} •` : name),
      track, make("span", { class: "value" }, shown.join("  ")));
  });
  const key = make("p", { class: "key" }, make("i"), "frontal  ",
    make("i", { class: "lateral" }), "lateral  ", make("b"),
    "operating point of the mean  • mean reaches it");
  return make("section", {}, make("h3", {}, "Image scores"), box, key);
}

function text(title, parts) {
  const body = make("p");
  for (const [sentence, verdict, findings] of parts) {
    if (verdict) body.append(
      make("mark", { class: verdict,
        title: `${WORDS[verdict]}: ${findings.join(", ")}` },
        make("b", {}, page.marks[verdict]), sentence));
    else body.append(sentence);
    body.append(" ");
  }
  if (!parts.length) body.append("(empty)");
  return make("section", { class: "text" }, make("h3", {}, title), body);
}

function findings(study) {
  const head = ["finding", "remark", "reference", ...page.systems];
  const rows = study.findings.map(([name, states, verdict, remark]) =>
    make("tr", {}, make("td", {}, name),
      make("td", {}, ...(verdict ? [sign(verdict)] : []), remark),
      ...states.map((state) => state ? make("td", {}, state)
        : make("td", { class: "none" }, "–"))));
  return make("div", { class: "scroll" }, make("table", {},
    make("thead", {}, make("tr", {}, ...head.map((h) => make("th", {}, h)))),
    make("tbody", {}, ...rows)));
}

const legend = () =>
  make("ul", { class: "legend" }, ...Object.keys(page.marks).map((verdict) =>
    make("li", {}, sign(verdict), WORDS[verdict])));

function article(study) {
  const views = ["frontal", "lateral"];
  const numbers = Object.entries(study.metrics).map(([name, value]) =>
    make("span", {}, `${name} ${value === null ? "–" : value.toFixed(2)}`));
  const films = make("div", { class: "films" },
    ...views.map((view) => film(study, view, "img")));
  if (views.some((view) => study.heat[view]))
    films.append(...views.map((view) => film(study, view, "heat")));
  return make("article", {},
    make("h2", {}, study.id),
    make("p", { class: "about" },
      [...new Set([study.status, ...study.mesh])].join(" · ")),
    ...(numbers.length ? [make("p", { class: "metrics" },
      `${page.systems[0]}, this pair: `, ...numbers)] : []),
    make("div", { class: "see" }, films, bars(study)),
    make("div", { class: "texts" },
      ...["reference", ...page.systems].map((name, i) =>
        text(name, study.texts[i]))),
    legend(), findings(study));
}

// --- the list ----------------------------------------------------------------

const pressed = new Set();
let chosen = page.studies;
let at = 0;
const count = (study, verdict) =>
  study.findings.filter(([, , outcome]) => outcome === verdict).length;
const score = (study, i) => Math.max(...["frontal", "lateral"].map((view) =>
  study.scores[view] ? study.scores[view][i] : -1));
const number = (study) => Number(study.id.replace(/\D/g, "")) || 0;
const ORDERS = {
  "study number": (a, b) => number(a) - number(b),
  "most missed": (a, b) => count(b, "missed") - count(a, "missed"),
  "most added": (a, b) => count(b, "added") - count(a, "added"),
  "most contradicted":
    (a, b) => count(b, "contradicts") - count(a, "contradicts"),
  "METEOR, highest first": (a, b) => b.metrics.METEOR - a.metrics.METEOR,
  "METEOR, lowest first": (a, b) => a.metrics.METEOR - b.metrics.METEOR,
  "score, highest first": (a, b) => score(b, condition()) - score(a, condition()),
};
const condition = () => Math.max(0, page.conditions.indexOf($("condition").value));

function wanted(study) {
  const finding = $("finding").value;
  const word = $("word").value.trim().toLowerCase();
  const rows = study.findings.filter((row) => !finding || row[0] === finding);
  return (!word || study.words.includes(word))
    && (!finding || rows.length > 0)
    && (!pressed.size || rows.some((row) => pressed.has(row[2])))
    && (!$("status").value || study.status === $("status").value)
    && (!$("condition").value
      || score(study, condition()) >= Number($("least").value));
}

function filter() {
  chosen = page.studies.filter(wanted).sort(ORDERS[$("order").value]);
  $("list").replaceChildren(...chosen.map((study, i) => {
    const marks = make("span", { class: "marks" });
    for (const verdict of ["missed", "added", "contradicts"])
      if (count(study, verdict))
        marks.append(sign(verdict), `${count(study, verdict)} `);
    const button = make("button", { type: "button" }, study.id,
      make("small", {}, study.status), marks);
    button.addEventListener("click", () => {
      show(i);
      unfold(false); // on a phone the list covers the study
    });
    return make("li", {}, button);
  }));
  document.querySelector("#count span").textContent =
    `${chosen.length} of ${page.studies.length} studies`;
  show(0);
}

function show(i) {
  const buttons = $("list").querySelectorAll("button");
  buttons[at]?.removeAttribute("aria-current");
  at = Math.min(Math.max(i, 0), Math.max(chosen.length - 1, 0));
  if (!chosen.length) {
    $("case").replaceChildren(make("p", { class: "nothing" },
      "No study has all of this. Loosen a filter."));
    return;
  }
  buttons[at].setAttribute("aria-current", "true");
  buttons[at].scrollIntoView({ block: "nearest" });
  const previous = make("button", { type: "button" }, "‹ previous");
  const next = make("button", { type: "button" }, "next ›");
  previous.addEventListener("click", () => show(at - 1));
  next.addEventListener("click", () => show(at + 1));
  $("case").replaceChildren(
    make("nav", { class: "turn" }, previous,
      make("span", {}, `${at + 1} of ${chosen.length}`), next),
    article(chosen[at]));
  history.replaceState(null, "", `#${encodeURIComponent(chosen[at].id)}`);
}

// --- controls ----------------------------------------------------------------

function options(id, names, all) {
  if (all) $(id).append(make("option", { value: "" }, all));
  for (const name of names) $(id).append(make("option", { value: name }, name));
}
$("run").textContent = `${page.systems[0]}: at least one of`;
options("finding", page.findings, "any");
options("status", [...new Set(page.studies.map((s) => s.status))].sort(), "any");
options("condition", page.conditions, "any condition");
options("order", Object.keys(ORDERS));
for (const verdict of ["missed", "added", "contradicts", "agree"]) {
  const button = make("button", { type: "button", "aria-pressed": "false",
    "data-verdict": verdict }, sign(verdict), WORDS[verdict]);
  button.addEventListener("click", () => {
    if (!pressed.delete(verdict)) pressed.add(verdict);
    button.setAttribute("aria-pressed", String(pressed.has(verdict)));
    filter();
  });
  $("verdicts").append(button);
}
$("filters").addEventListener("input", filter);
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("reset").addEventListener("click", () => {
  pressed.clear();
  for (const button of $("verdicts").children)
    button.setAttribute("aria-pressed", "false");
  $("filters").reset();
  filter();
});
const unfold = (shown) => {
  document.querySelector("aside").classList.toggle("shown", shown);
  $("open").setAttribute("aria-expanded", String(shown));
};
$("open").addEventListener("click", () =>
  unfold($("open").getAttribute("aria-expanded") === "false"));
document.addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey
    || event.target.closest("input, select")) return;
  if (["j", "ArrowRight"].includes(event.key)) show(at + 1);
  if (["k", "ArrowLeft"].includes(event.key)) show(at - 1);
});
window.addEventListener("beforeprint", () => {
  $("paper").replaceChildren(legend(), ...chosen.map(article));
  for (const image of $("paper").querySelectorAll("img")) {
    image.loading = "eager";
    image.decoding = "sync";
  }
});
window.addEventListener("afterprint", () => $("paper").replaceChildren());

const asked = location.hash.slice(1);
filter();
show(chosen.findIndex((study) => encodeURIComponent(study.id) === asked));
document.documentElement.dataset.ready = "yes";
