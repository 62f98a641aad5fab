"use strict";

// Each attempt calls door and resolves with what the page could read of the answer. Nothing read is
// "", and so is every error: a page learns no more from those than that it failed.

const request = '{"messages":[{"role":"user","content":"hello"}],"max_tokens":1}';

// settle is how long a frame or a window gets to send its message, in milliseconds, counted from its
// load or its opening. The open server shows that it is enough.
const settle = { frame: 300, window: 700 };

const url = (door, path, name, token) =>
  `${door}${path}?as=${encodeURIComponent(name)}&n=${crypto.getRandomValues(new Uint32Array(1))}&api_key=${token}`;
const models = (door, name, token) => url(door, "/v1/models", name, token);
const chat = (door, name, token) => url(door, "/v1/chat/completions", name, token);

// opaque: the page was given an answer that it cannot look into.
const read = (response) => response.type === "opaque" ? "open" : response.text();

function element(name, source, learned) {
  return new Promise((resolve, reject) => {
    const e = document.createElement(name);
    e.onload = () => resolve(learned(e));
    e.onerror = reject;
    e.src = source;
    document.body.append(e);
  });
}

// spoken resolves with what a frame or window says, or with what can be read in it.
function spoken(start) {
  return new Promise((resolve) => {
    addEventListener("message", (m) => resolve(String(m.data)), { once: true });
    start((look, wait) => setTimeout(() => {
      try { resolve(look().body.innerText); } catch { resolve(""); }
    }, wait));
  });
}

function frame(opened) {
  const f = document.createElement("iframe");
  f.name = "f" + Math.random();
  document.body.append(f); // loads its empty document at once
  f.onload = () => opened(() => f.contentDocument, settle.frame);
  return f;
}

const attempts = {
  "fetch": (door, token) => fetch(models(door, "fetch", token)).then(read),

  "no-cors POST": (door, token) =>
    fetch(chat(door, "no-cors POST", token), { method: "POST", mode: "no-cors", body: request }).then(read),

  "form POST": (door, token) => spoken((opened) => {
    const form = document.createElement("form");
    const field = document.createElement("input");
    form.method = "post";
    form.enctype = "text/plain";
    form.action = chat(door, "form POST", token);
    form.target = frame(opened).name;
    // With the "=" between name and value this is JSON.
    field.name = request.slice(0, -1) + ',"user":"';
    field.value = '"}';
    form.append(field);
    document.body.append(form);
    form.submit();
  }),

  "image": (door, token) => element("img", models(door, "image", token), (e) => e.naturalWidth > 0 ? "open" : ""),

  "script": (door, token) => element("script", models(door, "script", token), () => window.leaked),

  "WebSocket": (door, token) => new Promise((resolve, reject) => {
    const socket = new WebSocket(models(door, "WebSocket", token).replace("http", "ws"));
    socket.onmessage = (m) => { resolve(m.data); socket.close(); };
    socket.onerror = reject;
  }),

  "EventSource": (door, token) => new Promise((resolve, reject) => {
    const events = new EventSource(models(door, "EventSource", token));
    events.onmessage = (m) => { events.close(); resolve(m.data); };
    events.onerror = (e) => { events.close(); reject(e); };
  }),

  "preflight": (door, token) =>
    fetch(models(door, "preflight", ""), { headers: { Authorization: `Bearer ${token || "guess"}` } }).then(read),

  "iframe": (door, token) => spoken((opened) => { frame(opened).src = models(door, "iframe", token); }),

  "navigation": async (door, token) => {
    let w;
    const said = await spoken((opened) => {
      w = open(models(door, "navigation", token));
      opened(() => w.document, settle.window);
    });
    w.close();
    return said;
  },

  "beacon": async (door, token) => {
    if (!navigator.sendBeacon(chat(door, "beacon", token), request)) throw new Error("not queued");
    return ""; // nobody ever reads the answer to a beacon
  },
};

async function attempt(name, door, token) {
  try {
    return await attempts[name](door, token);
  } catch {
    return "";
  }
}

// What a page can do to an address that it knows and may not open as a window of its own.
const prying = {
  "fetch": (address) => fetch(address).then(read),
  "no-cors fetch": (address) => fetch(address, { mode: "no-cors", redirect: "manual" }).then((r) => r.status ? "open" : Promise.reject()),
  "image": (address) => element("img", address, () => "open"),
  "script": (address) => element("script", address, () => "open"),
  "iframe": (address) => spoken((opened) => { frame(opened).src = address; }),
  "prefetch": async (address) => {
    const rules = document.createElement("script");
    rules.type = "speculationrules";
    rules.textContent = JSON.stringify({ prefetch: [{ source: "list", urls: [address], eagerness: "immediate" }] });
    document.body.append(rules);
    await new Promise((resolve) => setTimeout(resolve, settle.frame));
    return "";
  },
};

async function pry(name, address) {
  try {
    return await prying[name](address);
  } catch {
    return "";
  }
}
