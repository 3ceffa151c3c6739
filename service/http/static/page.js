// The page at /: sends images to /classify and shows what comes back. Nothing is loaded from anywhere else.
"use strict";

const AT_ONCE = 4;
const RETRIES = 5;
const SPOKEN = 10; // of more images at once a screen reader hears the count alone
const SEEKING = "Looking for what spoke for the label ...";
const byId = (id) => document.getElementById(id);
const base = new URL(".", location.href);
let models = {};
let grpcPort = 8500;
let known = "";
let trouble = "";
let idle = "";
const mapless = new Set();
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

// What is read aloud, or may be selected, is left alone where nothing is new.
const write = (id, text) => {
  if (byId(id).textContent !== text) byId(id).textContent = text;
};

// ---- which model, which version

async function readModels() {
  try {
    const state = await (await fetch(new URL("readyz", base))).json();
    models = state.models || {};
    grpcPort = state.grpc_port || grpcPort;
    trouble = Object.keys(models).length ? "" : "No model is loaded yet. The page looks again every few seconds.";
  } catch {
    trouble = "The service cannot be reached.";
  }
  tell();
  const found = JSON.stringify([models, grpcPort]);
  if (found === known) return;
  known = found;
  mapless.clear();
  fill(byId("model"), Object.keys(models).map((name) => [name, name]));
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

const choice = () => `${byId("model").value} ${byId("version").value}`;

function query(withMap = byId("map").checked) {
  const asked = new URLSearchParams();
  if (Object.keys(models).length > 1) asked.set("model", byId("model").value);
  const [kind, value] = byId("version").value.split("=");
  if (value) asked.set(kind, value);
  // What is out of bounds goes out as it is: the service says so.
  const labels = byId("top_k").valueAsNumber;
  if (!Number.isNaN(labels) && labels !== 5) asked.set("top_k", labels);
  if (withMap) asked.set("activation_map", "1");
  return asked;
}

const url = (asked) => new URL(`${asked}` ? `classify?${asked}` : "classify", base);

// ---- images in

function add(files) {
  const images = [...files];
  if (!images.length) return;
  for (const file of images) {
    const one = { file, card: element("article"), figure: element("figure"), spoken: images.length <= SPOKEN };
    one.source = URL.createObjectURL(file);
    one.picture = element("img");
    one.picture.src = one.source;
    one.picture.addEventListener("error", () => one.figure.replaceChildren());
    one.around = element("div", "shown");
    one.figure.append(one.around);
    one.card.tabIndex = -1;
    shown.push(one);
    ask(one);
  }
  byId("results").prepend(...shown.slice(-images.length).map((one) => one.card));
  byId("clear").hidden = false;
  byId("code").hidden = false;
  showCode();
  work();
}

// Who waits already, or is being asked about, does so once.
function ask(one) {
  if (one.doing) return;
  waiting.push(one);
  show(one, one.answer ? SEEKING : "Classifying ...");
}

function show(one, doing) {
  one.doing = doing;
  one.card.setAttribute("aria-busy", Boolean(doing));
  draw(one);
}

const lacksMap = ({ answer, sought }) => byId("map").checked && answer && answer.label && !answer.activation_map && !sought;

function work() {
  while (running < AT_ONCE && waiting.length) {
    const one = waiting.shift();
    if (one.answer && !lacksMap(one)) {
      show(one, "");
      continue;
    }
    running += 1;
    classify(one).finally(() => {
      running -= 1;
      if (shown.includes(one)) {
        show(one, "");
        // Asked for after this request had gone.
        if (lacksMap(one)) ask(one);
      }
      work();
    });
  }
  tell();
}

async function classify(one) {
  const started = performance.now();
  const { result, served, note } = await send(one);
  const before = one.answer;
  // Without its map an answer is as good as it was.
  if (before && result.error) one.note = `What spoke for the label did not come: ${result.error.detail}`;
  else Object.assign(one, { answer: result, served, note, milliseconds: performance.now() - started });
  if (!before && one.spoken && shown.includes(one)) announce(one);
}

async function send(one) {
  const asked = query();
  const chosen = choice();
  const failed = (code, detail) => ({ result: { error: { code, detail } } });
  one.sought = asked.has("activation_map");
  let note = "";
  for (let attempt = 0; ; attempt += 1) {
    let response;
    try {
      response = await fetch(url(asked), { method: "POST", body: one.file, headers: { "Content-Type": one.file.type || "application/octet-stream" } });
    } catch {
      const readable = await one.file.slice(0, 1).arrayBuffer().then(() => true, () => false);
      if (!readable) return failed("UNREADABLE", "This is a folder or cannot be read.");
      return failed("NO_ANSWER", "The service did not answer.");
    }
    if ((response.status === 429 || response.status === 503) && attempt < RETRIES && shown.includes(one)) {
      show(one, "Busy, trying again ...");
      await new Promise((done) => setTimeout(done, 1000 * (Number(response.headers.get("Retry-After")) || 1)));
      continue;
    }
    const answer = await response.json().catch(() => null);
    const result = answer && answer.results ? answer.results[0] : answer && answer.code && { error: answer };
    if (!result) return failed(`HTTP ${response.status}`, "What came back is no answer of Graft's.");
    if (result.error && result.error.code === "NO_ACTIVATION_MAP" && asked.has("activation_map")) {
      asked.delete("activation_map");
      mapless.add(chosen);
      showCode();
      note = "This version cannot show what spoke for the label.";
      continue;
    }
    return { result, served: `${answer.model} ${answer.version}`, note };
  }
}

function tell() {
  const left = shown.filter((one) => !one.answer).length;
  const failed = shown.filter((one) => one.answer && one.answer.error).length;
  const images = shown.length === 1 ? "1 image" : `${shown.length} images`;
  // Beside the live region: 50 images are no reason to speak 50 times.
  write("progress", left && left < shown.length ? `${shown.length - left} done` : "");
  byId("status").classList.toggle("bad", Boolean(trouble));
  if (trouble) write("status", trouble);
  else if (!shown.length) write("status", idle);
  else if (left) write("status", `Classifying ${images} ...`);
  else if (shown.some((one) => one.doing)) write("status", SEEKING);
  else write("status", `${shown.length} classified${failed ? `, ${failed} of them failed` : ""}`);
}

// For who does not see the cards: each answer once, as it comes.
function announce({ file, answer }) {
  const best = answer.error ? answer.error.detail : `${answer.unknown ? "unknown, perhaps " : ""}${answer.label}, ${percent(answer.score)}`;
  byId("heard").append(element("p", "", `${file.name}: ${best}`));
}

const percent = (score) => `${(100 * score).toFixed(1)} %`;

// ---- what came back

function draw(one) {
  const { answer, picture, around } = one;
  picture.alt = answer && answer.label ? `${one.file.name}: ${answer.label}` : one.file.name;
  around.replaceChildren(picture);
  const text = element("div", "text");
  one.card.replaceChildren(one.figure, text);
  if (!answer) {
    text.append(element("h2", "", one.doing), element("p", "file", one.file.name));
    return;
  }
  if (answer.error) {
    const error = element("p", "error");
    error.append(element("strong", "", answer.error.code), ` ${answer.error.detail}`);
    const again = element("button", "second", "Try again");
    again.type = "button";
    again.setAttribute("aria-label", `Try again: ${one.file.name}`);
    again.addEventListener("click", () => {
      one.answer = undefined;
      ask(one);
      one.card.focus(); // the button is gone
      work();
    });
    text.append(element("h2", "", "No answer"), element("p", "file", one.file.name), error, again);
    return;
  }
  const title = element("h2", "", answer.unknown ? "" : answer.label);
  if (answer.unknown) title.append(element("span", "badge", "unknown"), ` perhaps ${answer.label}`);
  text.append(title, element("p", "file", one.file.name), bars(answer));
  const timing = answer.timing_ms;
  const parts = ["queue", "decode", "inference"].map((part) => `${part} ${timing[part].toFixed(1)} ms`).join(", ");
  if (one.doing || one.note) text.append(element("p", "timing", one.doing || one.note));
  text.append(element("p", "timing", `${one.served} · ${parts} · ${one.milliseconds.toFixed(0)} ms in all`));
  if (answer.activation_map) overlay(around, picture, answer);
}

function bars(answer) {
  const table = element("table");
  table.append(element("caption", "hidden", "Labels and scores"));
  const body = element("tbody");
  for (const { label, score } of answer.top) {
    const row = element("tr", answer.unknown ? "low" : "");
    const name = element("th");
    name.scope = "row";
    name.append(breakable(label));
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

function breakable(label) {
  const text = element("span");
  // names of folders have no spaces to break at
  label.split(/(?<=[_.-])/).forEach((piece, at) => text.append(...(at ? [element("wbr"), piece] : [piece])));
  return text;
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
  picture.addEventListener("load", place, { once: true });
  place();
  around.append(small);
}

// ---- the same request from a program

// As the page asks in the end: without a map that the version has refused.
const program = () => query(byId("map").checked && !mapless.has(choice()));

const quote = (text) => `'${text.replaceAll("'", "'\\''")}'`;

const snippets = {
  curl: (file) => `curl --data-binary @${quote(file)} -H ${quote("Content-Type: application/octet-stream")} ${quote(url(program()).href)}`,
  Python: (file) => `import requests

with open(${JSON.stringify(file)}, "rb") as image:
    answer = requests.post(${JSON.stringify(url(program()).href)}, data=image)
if not answer.ok:
    raise SystemExit(f"HTTP {answer.status_code}: {answer.text}")
for result in answer.json()["results"]:
    if "error" in result:
        print(result["error"]["code"], result["error"]["detail"])
    else:
        print(result["label"], result["score"])`,
  gRPC: (file) => {
    const asked = program();
    const fields = [`images=[Image(data=open(${JSON.stringify(file)}, "rb").read())]`];
    for (const name of ["model", "label"]) if (asked.has(name)) fields.push(`${name}=${JSON.stringify(asked.get(name))}`);
    for (const name of ["version", "top_k"]) if (asked.has(name)) fields.push(`${name}=${asked.get(name)}`);
    if (asked.has("activation_map")) fields.push("activation_map=True");
    return `import grpc
from protos.classifier_pb2 import ClassifyRequest, Image
from protos.classifier_pb2_grpc import ImageClassifierStub

stub = ImageClassifierStub(grpc.insecure_channel(${JSON.stringify(`${location.hostname}:${grpcPort}`)}))
answer = stub.Classify(ClassifyRequest(${fields.join(", ")}))
result = answer.results[0]
print(result.error.detail if result.HasField("error") else f"{result.label} {result.score}")`;
  },
};

function showCode() {
  const last = shown[shown.length - 1];
  const text = snippets[language](last ? last.file.name : "photo.jpg");
  if (byId("text").textContent !== text) write("copied", "");
  write("text", text);
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
  byId("files").focus(); // the button is gone
  idle = "Cleared";
  tell();
  showCode();
});
byId("options").addEventListener("submit", (event) => event.preventDefault());
byId("model").addEventListener("change", showVersions);
byId("version").addEventListener("change", showReport);
byId("top_k").addEventListener("change", () => {
  byId("top_k").reportValidity();
  showCode();
});
byId("map").addEventListener("change", () => {
  mapless.clear();
  for (const one of shown) {
    one.sought = false;
    if (one.note) {
      one.note = "";
      draw(one);
    }
    // Pictures that are there already get their map, too.
    if (lacksMap(one)) ask(one);
  }
  showCode();
  work();
});
byId("copy").addEventListener("click", async () => {
  let copied = true;
  try {
    await navigator.clipboard.writeText(byId("text").textContent);
  } catch {
    // Browsers have no clipboard for pages of plain HTTP from another host, and may refuse it to any page.
    getSelection().selectAllChildren(byId("text"));
    copied = document.execCommand("copy");
  }
  write("copied", copied ? "Copied" : "The browser did not copy it. The text is selected.");
});

makeTabs();
readModels();
setInterval(readModels, 5000);
