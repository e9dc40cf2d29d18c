"use strict";

const MOST = 10; // maximum number of classes shown
const byId = (id) => document.getElementById(id);
let token = "";
let model = null;

function element(name, text, attributes = {}) {
  const made = document.createElement(name);
  if (text !== null) made.textContent = text;
  for (const [key, value] of Object.entries(attributes)) made.setAttribute(key, value);
  return made;
}

function request(path, options = {}) {
  const headers = { ...options.headers };
  if (token) headers.Authorization = `Bearer ${token}`;
  return fetch(path, { ...options, headers });
}

function complain(text) {
  byId("problem").textContent = text;
  byId("problem").hidden = !text;
}

function field(name, input, label) {
  input.id = input.name = name;
  byId("fields").append(element("label", label, { for: name }), input);
}

function showForm() {
  byId("title").textContent = `${model.task}: ${model.model}`;
  byId("about").textContent = `Run ${model.run}, computed with ${model.backend}.`;
  const fields = byId("fields");
  fields.replaceChildren();
  if (model.kind === "text") {
    field("text", element("textarea", "", { required: "" }), "Text");
  } else if (model.kind === "table") {
    fields.className = "columns";
    model.columns.forEach((column, number) => {
      const input = element("input", null, { type: column.kind === "date" ? "date" : "text" });
      if (column.kind === "number") input.inputMode = "decimal";
      field(`column-${number}`, input, column.name);
    });
  } else {
    const label = model.kind === "image" ? "Images" : "Recordings";
    field("files", element("input", null, { type: "file", multiple: "", required: "", accept: `${model.kind}/*` }), label);
  }
  byId("access").hidden = true;
  byId("example").hidden = byId("api").hidden = false;
}

function body() {
  if (model.kind === "text") return { instances: [byId("text").value] };
  const row = {};
  model.columns.forEach((column, number) => {
    const text = byId(`column-${number}`).value.trim();
    row[column.name] = text === "" ? null : text; // the service reads numbers like those of the training data
  });
  return { instances: [row] };
}

function send() {
  if (model.kind === "text" || model.kind === "table") {
    const headers = { "Content-Type": "application/json" };
    return request("predict", { method: "POST", headers, body: JSON.stringify(body()) });
  }
  const form = new FormData();
  for (const file of byId("files").files) form.append("files", file);
  return request("predict", { method: "POST", body: form });
}

function shown(prediction) {
  const table = element("table", null);
  const rows = Object.entries(prediction.probabilities ?? prediction.values);
  if (prediction.probabilities) rows.sort((one, other) => other[1] - one[1]);
  for (const [name, value] of rows.slice(0, MOST)) {
    const row = table.insertRow();
    row.append(element("th", name, { scope: "row" }));
    if (prediction.probabilities) {
      const cell = row.insertCell();
      cell.append(element("meter", null, { value, min: 0, max: 1, "aria-label": name }));
    }
    const text = prediction.probabilities ? `${(100 * value).toFixed(1)}%` : value.toPrecision(6);
    row.append(element("td", text, { class: "number" }));
  }
  return table;
}

async function predict(event) {
  event.preventDefault();
  complain("");
  byId("answer").hidden = true;
  byId("send").disabled = true;
  try {
    const response = await send();
    const answer = await response.json();
    if (!response.ok) {
      complain(answer.detail);
      return;
    }
    const parts = answer.predictions.flatMap((prediction) => [
      ...(prediction.label === undefined ? [] : [element("p", prediction.label, { class: "label" })]),
      shown(prediction),
    ]);
    byId("predictions").replaceChildren(...parts, ...(answer.warnings ?? []).map((text) => element("p", text)));
    byId("answer").hidden = false;
  } catch (error) {
    complain(`The service did not answer: ${error.message}`);
  } finally {
    byId("send").disabled = false;
  }
}

function example() {
  const url = new URL("predict", location.href);
  const access = token ? " \\\n  -H 'Authorization: Bearer TOKEN'" : "";
  if (model.kind === "image" || model.kind === "audio") return `curl ${url}${access} \\\n  -F files=@FILE`;
  const text = { instances: [model.kind === "text" ? "a text" : Object.fromEntries(model.columns.map((c) => [c.name, null]))] };
  const quoted = JSON.stringify(text).replaceAll("'", "'\\''");
  return `curl ${url}${access} \\\n  -H 'Content-Type: application/json' \\\n  -d '${quoted}'`;
}

async function showApi() {
  byId("curl").textContent = example();
  const description = await (await request("openapi.json")).json();
  const table = element("table", null);
  for (const [path, methods] of Object.entries(description.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const row = table.insertRow();
      row.append(element("th", `${method.toUpperCase()} ${path}`, { scope: "row" }), element("td", operation.description));
      const types = Object.keys(operation.requestBody?.content ?? {});
      row.append(element("td", types.join(", ")));
    }
  }
  byId("operations").replaceChildren(table);
}

async function open(event) {
  event?.preventDefault();
  token = byId("token").value.trim();
  complain("");
  const response = await request("model");
  if (response.status === 401) {
    if (event) complain("The token is wrong.");
    byId("access").hidden = false;
  } else if (!response.ok) {
    complain((await response.json()).detail);
  } else {
    model = await response.json();
    showForm();
    await showApi();
  }
  document.documentElement.dataset.ready = "";
}

byId("access").addEventListener("submit", open);
byId("example").addEventListener("submit", predict);
open();
