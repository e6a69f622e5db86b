"use strict";
// The OpenAPI document as a page, without a viewer from elsewhere.
const make = (tag, text, ...children) => {
  const element = document.createElement(tag);
  if (text) element.textContent = text;
  element.append(...children);
  return element;
};

function fields(schema) {
  const rows = Object.entries(schema.properties ?? {}).map(([name, field]) => {
    const needed = (schema.required ?? []).includes(name) ? "required" : "";
    const { description, ...rest } = field;
    return make("tr", "", make("td", name), make("td", needed), make("td", description ?? ""), make("td", "", make("code", JSON.stringify(rest))));
  });
  return make("table", "", ...rows);
}

function operation(path, method, said, schemas) {
  const section = make("section", "", make("h2", `${method.toUpperCase()} ${path}`), make("p", said.summary));
  for (const [kind, body] of Object.entries(said.requestBody?.content ?? {})) {
    section.append(make("h3", `Body: ${kind}`));
    const name = body.schema?.$ref?.split("/").pop();
    if (body.example) section.append(make("pre", JSON.stringify(body.example, null, 1)));
    if (name) section.append(fields(schemas[name]));
  }
  section.append(make("h3", "Answers"), make("p", Object.keys(said.responses).join(", ")));
  return section;
}

async function start() {
  const message = document.getElementById("message");
  try {
    const described = await (await fetch("openapi.json")).json();
    message.textContent = described.info.description;
    for (const [path, methods] of Object.entries(described.paths))
      for (const [method, said] of Object.entries(methods))
        document.getElementById("operations").append(operation(path, method, said, described.components.schemas));
  } catch {
    message.textContent = "The service does not answer. Load the page again.";
  }
}

start();
