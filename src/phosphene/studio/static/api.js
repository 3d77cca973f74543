// The studio's addresses, as functions. What goes wrong is an Error whose message is the studio's own sentence.

async function ask(path, options = {}) {
  let response;
  try {
    response = await fetch(`/api/${path}`, options);
  } catch {
    throw Object.assign(new Error("The studio does not answer. Is it still running?"), { lost: true });
  }
  if (response.ok) return response.json();
  const text = await response.text();
  let message = text;
  try {
    message = JSON.parse(text).error;
  } catch { /* a refusal in plain words */ }
  throw Object.assign(new Error(message), { status: response.status });
}

const post = (path, body) => ask(path, { method: "POST", body: JSON.stringify(body) });
const part = encodeURIComponent;

export const catalogue = () => ask("catalogue");
export const layers = (model) => ask(`layers?model=${part(model)}`);
export const recipe = (order) => post("recipe", order);
export const keep = (file) => ask(`photographs?name=${part(file.name ?? "picture.png")}`, { method: "POST", body: file });
export const pictures = () => ask("pictures");
export const picture = (name) => ask(`pictures/${part(name)}`);
export const comparisons = () => ask("comparisons");
export const comparison = (name) => ask(`comparisons/${part(name)}`);
export const compare = (order) => post("comparisons", order);
export const goOn = (name) => post(`comparisons/${part(name)}`, {});
export const start = (queue, order) => post(queue, order);
export const waiting = () => ask("dreams");
export const report = (queue, id, since) => ask(`${queue}/${part(id)}?since=${since}`);
export const stop = (queue, id) => post(`${queue}/${part(id)}/stop`, {});

export const viewOfPhotograph = (name, side = 2048) => `/api/photographs/${part(name)}/view?side=${side}`;
export const fileOfPhotograph = (name) => `/api/photographs/${part(name)}/file`;
export const viewOfPicture = (name, side = 2048) => `/api/pictures/${part(name)}/view?side=${side}`;
export const fileOfPicture = (name) => `/api/pictures/${part(name)}/file`;
export const reportOf = (name) => `/api/comparisons/${part(name)}/report`;
export const frame = (queue, id, step) => `/api/${queue}/${part(id)}/frame?step=${step}`;
export const thumbnail = (asked) => `/api/thumbnail?${new URLSearchParams(asked)}`;
