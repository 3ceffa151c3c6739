// The page at /: sends images to /classify and shows what comes back. Nothing is loaded from anywhere else.
"use strict";

const AT_ONCE = 4;
const RETRIES = 5;
const byId = (id) => document.getElementById(id);
const base = new URL(".", location.href);
let models = {};
let grpcPort = 8500;
let shown = [];
let waiting = [];
let running = 0;
let language = "curl";

const element = (tag, className, text) => {
  const made = document.createElement(tag);
  if (className) made.className = className;
  if (text !== undefined) made.textContent = text;
  return made;
};

// ---- which model, which version

async function readModels() {
  try {
    const state = await (await fetch(new URL("readyz", base))).json();
    models = state.models || {};
    grpcPort = state.grpc_port || grpcPort;
    if (!Object.keys(models).length) say("No model is loaded yet. The page looks again every few seconds.", true);
    else if (byId("status").classList.contains("bad")) say("");
  } catch {
    say("The service cannot be reached.", true);
    return;
  }
  const names = Object.keys(models);
  fill(byId("model"), names.map((name) => [name, name]));
  showVersions();
}

function showVersions() {
  const model = models[byId("model").value];
  const versions = Object.entries(model ? model.versions : {}).filter(([, one]) => one.state === "AVAILABLE");
  const labels = Object.entries((model && model.labels) || {});
  fill(byId("version"), [
    ["", model && model.live ? `live (${model.live})` : "live"],
    ...labels.map(([label, number]) => [`label=${label}`, `${label} (${number})`]),
    ...versions.map(([number]) => [`version=${number}`, number]),
  ]);
  showReport();
}

function chosenVersion() {
  const model = models[byId("model").value];
  if (!model) return 0;
  const [kind, value] = byId("version").value.split("=");
  if (kind === "version") return Number(value);
  return kind === "label" ? model.labels[value] : model.live;
}

function showReport() {
  const version = chosenVersion();
  const link = byId("report");
  link.hidden = !version;
  link.href = new URL(`reports/${encodeURIComponent(byId("model").value)}/${version}/`, base);
  link.textContent = `Training report of version ${version}`;
  showCode();
}

function fill(select, options) {
  const before = select.value;
  select.replaceChildren(...options.map(([value, text]) => new Option(text, value)));
  if (options.some(([value]) => value === before)) select.value = before;
}

function query() {
  const asked = new URLSearchParams();
  if (Object.keys(models).length > 1) asked.set("model", byId("model").value);
  const [kind, value] = byId("version").value.split("=");
  if (value) asked.set(kind, value);
  if (topK() !== 5) asked.set("top_k", topK());
  if (byId("map").checked) asked.set("activation_map", "1");
  return asked;
}

const topK = () => Math.min(100, Math.max(1, Math.trunc(Number(byId("top_k").value)) || 5));

function url(withMap = true) {
  const asked = query();
  if (!withMap) asked.delete("activation_map");
  return new URL(`${asked}` ? `classify?${asked}` : "classify", base);
}

// ---- images in

function add(files) {
  const images = [...files];
  if (!images.length) return;
  for (const file of images) {
    const one = { file, card: element("article") };
    one.card.setAttribute("aria-busy", "true");
    draw(one);
    shown.push(one);
    waiting.push(one);
  }
  byId("results").prepend(...images.map((_, at) => shown[shown.length - images.length + at].card));
  byId("clear").hidden = false;
  byId("code").hidden = false;
  showCode();
  work();
}

function work() {
  while (running < AT_ONCE && waiting.length) {
    const one = waiting.shift();
    running += 1;
    classify(one).finally(() => {
      running -= 1;
      one.card.removeAttribute("aria-busy");
      draw(one);
      announce(one);
      tell();
      work();
    });
  }
  tell();
}

async function classify(one) {
  const started = performance.now();
  let withMap = true;
  for (let attempt = 0; ; attempt += 1) {
    try {
      const response = await fetch(url(withMap), { method: "POST", body: one.file, headers: { "Content-Type": one.file.type || "application/octet-stream" } });
      if ((response.status === 429 || response.status === 503) && attempt < RETRIES) {
        await new Promise((done) => setTimeout(done, 1000 * (Number(response.headers.get("Retry-After")) || 1)));
        continue;
      }
      const answer = await response.json();
      const code = answer.results ? (answer.results[0].error || {}).code : answer.code;
      if (code === "NO_ACTIVATION_MAP" && withMap) {
        withMap = false;
        continue;
      }
      one.note = withMap ? "" : "This version cannot show what spoke for the label.";
      one.answer = answer.results ? answer.results[0] : { error: { code: answer.code, detail: answer.detail } };
      one.served = answer.results ? `${answer.model} ${answer.version}` : "";
    } catch {
      one.answer = { error: { code: "NO_ANSWER", detail: "The service did not answer." } };
    }
    one.milliseconds = performance.now() - started;
    return;
  }
}

function tell() {
  const left = shown.filter((one) => !one.answer).length;
  const failed = shown.filter((one) => one.answer && one.answer.error).length;
  const bad = failed ? `, ${failed} of them failed` : "";
  if (shown.length) say(left ? `${shown.length - left} of ${shown.length} classified${bad}` : `${shown.length} classified${bad}`);
}

function say(text, bad = false) {
  byId("status").textContent = text;
  byId("status").classList.toggle("bad", bad);
}

// For who does not see the cards: each answer once, as it comes.
function announce({ file, answer }) {
  const best = answer.error ? answer.error.detail : `${answer.unknown ? "unknown, perhaps " : ""}${answer.label}, ${percent(answer.score)}`;
  byId("heard").append(element("p", "", `${file.name}: ${best}`));
}

const percent = (score) => `${(100 * score).toFixed(1)} %`;

// ---- what came back

function draw(one) {
  const figure = element("figure");
  const around = element("div", "shown");
  const picture = element("img");
  one.source ||= URL.createObjectURL(one.file);
  picture.src = one.source;
  picture.alt = one.answer && one.answer.label ? `${one.file.name}: ${one.answer.label}` : one.file.name;
  picture.addEventListener("error", () => figure.remove());
  around.append(picture);
  figure.append(around);
  const text = element("div", "text");
  one.card.replaceChildren(figure, text);
  const answer = one.answer;
  if (!answer) {
    text.append(element("h2", "", "Classifying ..."), element("p", "file", one.file.name));
    return;
  }
  if (answer.error) {
    const error = element("p", "error");
    error.append(element("strong", "", answer.error.code), ` ${answer.error.detail}`);
    text.append(element("h2", "", "No answer"), element("p", "file", one.file.name), error);
    return;
  }
  const title = element("h2", "", answer.unknown ? "" : answer.label);
  if (answer.unknown) title.append(element("span", "badge", "unknown"), ` perhaps ${answer.label}`);
  text.append(title, element("p", "file", one.file.name), bars(answer));
  const timing = answer.timing_ms;
  const parts = ["queue", "decode", "inference"].map((part) => `${part} ${timing[part].toFixed(1)} ms`).join(", ");
  if (one.note) text.append(element("p", "timing", one.note));
  text.append(element("p", "timing", `${one.served} · ${parts} · ${one.milliseconds.toFixed(0)} ms in all`));
  if (answer.activation_map) overlay(around, picture, answer);
}

function bars(answer) {
  const table = element("table");
  table.append(element("caption", "hidden", "Labels and scores"));
  const body = element("tbody");
  for (const { label, score } of answer.top) {
    const row = element("tr", answer.unknown ? "low" : "");
    const name = element("th", "", label);
    name.scope = "row";
    const cell = element("td");
    const track = element("div", "track");
    const bar = element("div", "bar");
    bar.style.width = `${100 * score}%`;
    track.append(bar);
    cell.append(track);
    cell.setAttribute("aria-hidden", "true");
    row.append(name, cell, element("td", "number", percent(score)));
    body.append(row);
  }
  table.append(body);
  return table;
}

function overlay(around, picture, answer) {
  const { values, region_px: region } = answer.activation_map;
  const small = element("canvas");
  small.width = values[0].length;
  small.height = values.length;
  const context = small.getContext("2d");
  const pixels = context.createImageData(small.width, small.height);
  values.flat().forEach((value, at) => pixels.data.set([255, 230 * (1 - value), 0, 150 * value * value], 4 * at));
  context.putImageData(pixels, 0, 0);
  small.setAttribute("role", "img");
  small.setAttribute("aria-label", `Red where the picture spoke most for ${answer.label}`);
  const place = () => {
    const { naturalWidth: width, naturalHeight: height } = picture;
    if (!width) return;
    small.style.left = `${(100 * region.left) / width}%`;
    small.style.top = `${(100 * region.top) / height}%`;
    small.style.width = `${(100 * region.width) / width}%`;
    small.style.height = `${(100 * region.height) / height}%`;
  };
  picture.addEventListener("load", place);
  place();
  around.append(small);
}

// ---- the same request from a program

const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

const snippets = {
  curl: (file) => `curl --data-binary @${quote(file)} -H ${quote("Content-Type: application/octet-stream")} ${quote(url().href)}`,
  Python: (file) => `import requests

with open(${JSON.stringify(file)}, "rb") as image:
    answer = requests.post(${JSON.stringify(url().href)}, data=image)
for result in answer.json()["results"]:
    print(result["label"], result["score"])`,
  gRPC: (file) => {
    const asked = query();
    const fields = [`images=[Image(data=open(${JSON.stringify(file)}, "rb").read())]`];
    for (const name of ["model", "label"]) if (asked.has(name)) fields.push(`${name}=${JSON.stringify(asked.get(name))}`);
    for (const name of ["version", "top_k"]) if (asked.has(name)) fields.push(`${name}=${asked.get(name)}`);
    if (asked.has("activation_map")) fields.push("activation_map=True");
    return `import grpc
from protos.classifier_pb2 import ClassifyRequest, Image
from protos.classifier_pb2_grpc import ImageClassifierStub

stub = ImageClassifierStub(grpc.insecure_channel(${JSON.stringify(`${location.hostname}:${grpcPort}`)}))
answer = stub.Classify(ClassifyRequest(${fields.join(", ")}))
print(answer.results[0].label, answer.results[0].score)`;
  },
};

function showCode() {
  const last = shown[shown.length - 1];
  byId("text").textContent = snippets[language](last ? last.file.name : "photo.jpg");
}

function choose(name) {
  language = name;
  for (const tab of byId("tabs").children) {
    const selected = tab.textContent === name;
    tab.setAttribute("aria-selected", selected);
    tab.tabIndex = selected ? 0 : -1;
  }
  byId("snippet").setAttribute("aria-labelledby", `tab-${name}`);
  showCode();
}

function makeTabs() {
  for (const name of Object.keys(snippets)) {
    const tab = element("button", "", name);
    tab.type = "button";
    tab.id = `tab-${name}`;
    tab.setAttribute("role", "tab");
    tab.setAttribute("aria-controls", "snippet");
    tab.addEventListener("click", () => choose(name));
    byId("tabs").append(tab);
  }
  byId("tabs").addEventListener("keydown", (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step) return;
    const names = Object.keys(snippets);
    choose(names[(names.indexOf(language) + step + names.length) % names.length]);
    byId(`tab-${language}`).focus();
  });
  choose(language);
}

// ---- everything that a person can do

for (const id of ["files", "camera"]) {
  byId(id).addEventListener("change", (event) => {
    add(event.target.files);
    event.target.value = "";
  });
}
document.addEventListener("paste", (event) => add(event.clipboardData.files));
document.addEventListener("dragover", (event) => {
  event.preventDefault();
  byId("drop").classList.add("over");
});
document.addEventListener("dragleave", (event) => {
  if (!event.relatedTarget) byId("drop").classList.remove("over");
});
document.addEventListener("drop", (event) => {
  event.preventDefault();
  byId("drop").classList.remove("over");
  add(event.dataTransfer.files);
});
byId("clear").addEventListener("click", () => {
  for (const one of shown) URL.revokeObjectURL(one.source);
  shown = [];
  waiting = [];
  byId("results").replaceChildren();
  byId("heard").replaceChildren();
  byId("clear").hidden = true;
  say("");
  showCode();
});
byId("options").addEventListener("submit", (event) => event.preventDefault());
byId("model").addEventListener("change", showVersions);
byId("version").addEventListener("change", showReport);
byId("top_k").addEventListener("change", showCode);
byId("map").addEventListener("change", () => {
  showCode();
  if (!byId("map").checked) return;
  // Pictures that are there already get their map, too.
  const without = shown.filter((one) => one.answer && one.answer.label && !one.answer.activation_map);
  waiting.push(...without);
  work();
});
byId("copy").addEventListener("click", async () => {
  if (navigator.clipboard) await navigator.clipboard.writeText(byId("text").textContent);
  else {
    // Browsers have no clipboard for pages of plain HTTP from another host.
    getSelection().selectAllChildren(byId("text"));
    document.execCommand("copy");
  }
  byId("copy").textContent = "Copied";
  setTimeout(() => (byId("copy").textContent = "Copy"), 1500);
});

makeTabs();
readModels();
setInterval(readModels, 5000);
