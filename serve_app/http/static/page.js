"use strict";
// Everything about the fields comes from the OpenAPI document, and so from the contract of a listing.
const $ = (id) => document.getElementById(id);
const SVG = "http://www.w3.org/2000/svg";
const AMENITIES = "amenities";
let properties = {};

const make = (tag, attributes = {}, ...children) => {
  const element = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) element.setAttribute(name, value);
  element.append(...children);
  return element;
};
const words = (name) => name.replaceAll("_", " ").replace(/^./, (letter) => letter.toUpperCase());
const kinds = (schema) => schema.anyOf ?? [schema];
const isFlag = (schema) => kinds(schema).some((kind) => kind.type === "boolean");
const plain = (schema) => kinds(schema).find((kind) => kind.type !== "null");

const headers = () => {
  const key = $("key").value;
  return { "Content-Type": "application/json", ...(key ? { "X-API-Key": key } : {}) };
};

function input(name, schema, value, known) {
  const kind = plain(schema);
  const choices = kind.enum ?? known?.[name];
  const common = { id: name, name, "aria-describedby": `${name}-wrong` };
  if (choices && name !== "property_type") {
    const select = make("select", common);
    for (const choice of choices) select.append(make("option", { value: choice }, choice));
    if (value !== undefined) select.value = value;
    return select;
  }
  const box = make("input", { ...common, type: kind.type === "string" ? "text" : "number", value: value ?? "" });
  if (kind.type !== "string") {
    box.step = kind.type === "integer" ? "1" : "any";
    if (kind.minimum !== undefined) box.min = kind.minimum;
    if (kind.maximum < 1e15) box.max = kind.maximum;
  }
  return box;
}

function build(example, known) {
  for (const [name, schema] of Object.entries(properties)) {
    if (name === AMENITIES) continue;
    if (isFlag(schema)) {
      const box = make("input", { id: name, name, type: "checkbox" });
      box.checked = Boolean(example[name]);
      $("flags").append(make("label", { title: schema.description }, box, words(name)));
    } else {
      const label = make("label", { for: name, title: schema.description }, words(name));
      const wrong = make("p", { id: `${name}-wrong`, class: "wrong" });
      $("fields").append(make("div", {}, label, input(name, schema, example[name], known), wrong));
    }
  }
}

function listing() {
  const filled = {};
  for (const [name, schema] of Object.entries(properties)) {
    const box = $(name);
    if (!box) continue;
    if (isFlag(schema)) filled[name] = box.checked ? 1 : 0;
    else if (box.value.trim() !== "") filled[name] = plain(schema).type === "string" ? box.value : Number(box.value);
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

function show(answer) {
  $("category").textContent = answer.price_category;
  const shares = Object.entries(answer.probabilities);
  $("probabilities").replaceChildren(
    ...shares.map(([label, share]) => bar(label, share, [[0, 100, "track"], [0, share * 100, "share"]], `${(share * 100).toFixed(1)} %`)));
  $("explained").hidden = !answer.contributions;
  if (answer.contributions) {
    const parts = Object.entries(answer.contributions[answer.price_category]).sort((a, b) => Math.abs(b[1]) - Math.abs(a[1]));
    const most = Math.max(...parts.map(([, value]) => Math.abs(value)), 1e-9);
    $("contributions").replaceChildren(...parts.map(([name, value]) => {
      const width = (Math.abs(value) / most) * 50;
      const shape = value < 0 ? [50 - width, width, "against"] : [50, width, "for"];
      return bar(name, value, [[0, 100, "track"], shape], `${value > 0 ? "+" : ""}${value.toFixed(2)}`);
    }));
  }
  $("model").textContent = `Answered by ${answer.model}`;
  $("result").hidden = false;
  $("message").textContent = "";
}

function refuse(error) {
  const problems = error.problems ?? [];
  const shown = problems.filter((problem) => $(`${problem.field}-wrong`));
  for (const problem of shown) {
    $(`${problem.field}-wrong`).textContent = problem.message;
    $(problem.field).setAttribute("aria-invalid", "true");
  }
  if (shown.length) $(shown[0].field).focus();
  $("result").hidden = true;
  $("message").textContent = [error.message, ...problems.filter((problem) => !shown.includes(problem)).map((problem) => problem.message)].join(" ");
}

async function ask(path) {
  const response = await fetch(path, { method: "POST", headers: headers(), body: JSON.stringify(listing()) });
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
  $("listing").addEventListener("submit", submit);
  try {
    const described = await (await fetch("openapi.json")).json();
    const schema = described.components.schemas.Listing;
    properties = schema.properties;
    const model = await fetch("v1/model", { headers: headers() });
    const known = model.ok ? Object.fromEntries(Object.entries((await model.json()).vocabulary).map(([name, codes]) => [name, Object.keys(codes)])) : {};
    build(schema.example, known);
    $("message").textContent = "The example is filled in: press the button, or change it first.";
  } catch {
    $("message").textContent = "The service does not answer. Load the page again.";
  }
}

start();
