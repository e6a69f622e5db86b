"use strict";
// Everything about the fields comes from the OpenAPI document, and so from the contract in force.
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
let contract = {};
let properties = {};

const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};
const words = (name) => name.replaceAll("_", " ").replace(/^./, (letter) => letter.toUpperCase());
// A field may be called as something else on this page is.
const idOf = (name) => `field-${name}`;
const problemOf = (name) => $(`${idOf(name)}-problem`);
const kinds = (schema) => schema.anyOf ?? [schema];
const isFlag = (schema) => kinds(schema).some((kind) => kind.type === "boolean");
const typeOf = (schema) => kinds(schema).find((kind) => kind.type !== "null");

const headers = () => {
  const key = $("key").value;
  return { "Content-Type": "application/json", ...(key ? { "X-API-Key": key } : {}) };
};

function selection(attributes, choices, value) {
  const select = make("select", attributes);
  for (const choice of choices) select.append(make("option", { value: choice }, choice));
  if (value !== undefined) select.value = value;
  return select;
}

function input(name, schema, value, vocabulary) {
  const type = typeOf(schema);
  const attributes = { id: idOf(name), name, "aria-describedby": `${idOf(name)}-problem` };
  const known = contract.known_values_only.includes(name) ? vocabulary[name] : undefined;
  const choices = type.enum ?? (known && Object.keys(known));
  if (choices) return selection(attributes, choices, value);
  const box = make("input", { ...attributes, type: type.type === "string" ? "text" : "number", value: value ?? "" });
  if (type.type !== "string") {
    box.step = type.type === "integer" ? "1" : "any";
    if (type.minimum !== undefined) box.min = type.minimum;
    if (type.maximum < 1e15) box.max = type.maximum;
  }
  return box;
}

function build(example, vocabulary) {
  for (const [name, schema] of Object.entries(properties)) {
    if (contract.lists.includes(name)) continue;
    if (isFlag(schema)) {
      const box = make("input", { id: idOf(name), name, type: "checkbox" });
      box.checked = Boolean(example[name]);
      $("flags").append(make("label", { title: schema.description }, box, words(name)));
      $("flags").parentElement.hidden = false;
    } else {
      const label = make("label", { for: idOf(name), title: schema.description }, words(name));
      const problem = make("p", { id: `${idOf(name)}-problem`, class: "wrong" });
      $("fields").append(make("div", {}, label, input(name, schema, example[name], vocabulary), problem));
    }
  }
}

function record() {
  const filled = {};
  for (const [name, schema] of Object.entries(properties)) {
    const box = $(idOf(name));
    if (!box) continue;
    if (isFlag(schema)) filled[name] = box.checked ? 1 : 0;
    else if (box.value.trim() !== "") filled[name] = typeOf(schema).type === "string" ? box.value : Number(box.value);
  }
  return filled;
}

function bar(name, value, shapes, text) {
  const picture = document.createElementNS(SVG, "svg");
  picture.setAttribute("viewBox", "0 0 100 10");
  picture.setAttribute("preserveAspectRatio", "none");
  picture.setAttribute("aria-hidden", "true");
  for (const [x, width, kind] of shapes) {
    const shape = document.createElementNS(SVG, "rect");
    for (const [key, number] of Object.entries({ x, width, y: 0, height: 10 })) shape.setAttribute(key, number);
    shape.setAttribute("class", kind);
    picture.append(shape);
  }
  const row = make("div", { class: "bar", "data-name": name, "data-value": value });
  row.append(make("span", {}, words(name)), picture, make("span", { class: "value" }, text));
  return row;
}

function probabilityBar([label, probability]) {
  const percent = probability * 100;
  return bar(label, probability, [[0, 100, "track"], [0, percent, "share"]], `${percent.toFixed(1)} %`);
}

function contributionBars(contributions) {
  const sorted = Object.entries(contributions).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
  const largest = Math.max(...sorted.map(([, value]) => Math.abs(value)), 1e-9);
  return sorted.map(([name, value]) => {
    const width = (Math.abs(value) / largest) * 50;
    const shape = value < 0 ? [50 - width, width, "against"] : [50, width, "for"];
    return bar(name, value, [[0, 100, "track"], shape], `${value > 0 ? "+" : ""}${value.toFixed(2)}`);
  });
}

function show(answer) {
  const label = answer[contract.label];
  $("label").textContent = label;
  $("probabilities").replaceChildren(...Object.entries(answer.probabilities).map(probabilityBar));
  $("explained").hidden = !answer.contributions;
  if (answer.contributions) $("contributions").replaceChildren(...contributionBars(answer.contributions[label]));
  $("model").textContent = `Answered by ${answer.model}`;
  $("result").hidden = false;
  $("message").textContent = "";
}

function refuse(error) {
  const problems = error.problems ?? [];
  const marked = problems.filter((problem) => problemOf(problem.field));
  for (const problem of marked) {
    problemOf(problem.field).textContent = problem.message;
    $(idOf(problem.field)).setAttribute("aria-invalid", "true");
  }
  if (marked.length) $(idOf(marked[0].field)).focus();
  $("result").hidden = true;
  const others = problems.filter((problem) => !marked.includes(problem));
  $("message").textContent = [error.message, ...others.map((problem) => problem.message)].join(" ");
}

async function ask(path) {
  const response = await fetch(path, { method: "POST", headers: headers(), body: JSON.stringify(record()) });
  return { status: response.status, body: await response.json() };
}

async function submit(event) {
  event.preventDefault();
  for (const box of document.querySelectorAll("[aria-invalid]")) box.removeAttribute("aria-invalid");
  for (const text of document.querySelectorAll(".wrong")) text.textContent = "";
  $("message").textContent = "Asking…";
  try {
    let answer = await ask("v1/explain");
    if (answer.status === 501) answer = await ask("v1/predict");
    if (answer.status === 200) {
      show(answer.body);
      $("answer").focus();
    } else refuse(answer.body.error);
  } catch {
    refuse({ message: "The service does not answer. Try again." });
  }
}

async function start() {
  $("record").addEventListener("submit", submit);
  try {
    const described = await (await fetch("openapi.json")).json();
    contract = described.info["x-contract"];
    properties = described.components.schemas.Record.properties;
    $("about").textContent = `One ${contract.record} in, its ${words(contract.label).toLowerCase()} out.`;
    $("record").setAttribute("aria-label", words(contract.record));
    $("label-name").textContent = words(contract.label);
    const model = await fetch("v1/model", { headers: headers() });
    build(described.components.schemas.Record.example, model.ok ? (await model.json()).vocabulary : {});
    $("message").textContent = "The example is filled in: press the button, or change it first.";
  } catch {
    $("message").textContent = "The service does not answer. Load the page again.";
  }
}

start();
