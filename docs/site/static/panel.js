// Swaps the recorded frames of a panel under its controls. No framework, no request but the frames.
for (const panel of document.querySelectorAll(".dgm-panel")) {
  const { frames, start, sliders, folder } = JSON.parse(panel.querySelector("script").textContent);
  const image = panel.querySelector("img");
  const controls = [...panel.querySelectorAll("[data-control]")];
  let state = [...start];
  let timer = null;

  const labels = (control) => JSON.parse(control.dataset.labels);

  function write() { // what the controls show is the state, whoever changed it
    controls.forEach((control, i) => {
      const input = control.querySelector("input");
      if (input.type === "range") {
        const text = labels(control)[state[i]];
        input.value = state[i];
        input.setAttribute("aria-valuetext", text);
        control.querySelector("output").textContent = text;
      } else if (input.type === "checkbox") {
        input.checked = state[i] === 1;
      } else {
        control.querySelectorAll("input")[state[i]].checked = true;
      }
    });
  }

  function show() {
    const [file, alt] = frames[state.join()];
    image.src = folder + file;
    image.alt = alt;
    write();
  }

  function set(i, value) {
    state[i] = value;
    if (!(state.join() in frames)) { // recorded one slider at a time: the others go back
      state = state.map((now, j) => (j !== i && sliders.includes(j) ? start[j] : now));
    }
    show();
  }

  function stop() {
    clearInterval(timer);
    timer = null;
    panel.querySelectorAll(".dgm-play").forEach((button) => { button.textContent = "Play"; });
  }

  function step(i) {
    const last = labels(controls[i]).length - 1;
    if (state[i] >= last) return stop();
    set(i, state[i] + 1);
    if (state[i] >= last) stop();
  }

  controls.forEach((control, i) => {
    control.addEventListener("input", (event) => {
      stop();
      const input = event.target;
      set(i, input.type === "checkbox" ? Number(input.checked) : Number(input.value));
    });
    control.querySelector(".dgm-play")?.addEventListener("click", (event) => {
      if (timer !== null) return stop();
      if (state[i] >= labels(control).length - 1) set(i, 0);
      event.target.textContent = "Pause";
      timer = setInterval(() => step(i), 200);
    });
    control.querySelector(".dgm-step")?.addEventListener("click", () => { stop(); step(i); });
    control.querySelector(".dgm-reset")?.addEventListener("click", () => { stop(); set(i, 0); });
  });

  const fetchAll = () => { // the frames come when a reader's hand does
    for (const [file] of Object.values(frames)) new Image().src = folder + file;
  };
  panel.addEventListener("pointerenter", fetchAll, { once: true });
  panel.addEventListener("focusin", fetchAll, { once: true });
  panel.classList.add("dgm-ready");
}

// What the theme leaves without a name for those who hear the page instead of seeing it.
for (const summary of document.querySelectorAll("nav summary")) {
  const section = summary.closest("li")?.querySelector("a")?.textContent.trim();
  summary.setAttribute("aria-label", `Pages of ${section}`);
}
for (const button of document.querySelectorAll(".search-button__button[aria-label]")) {
  button.removeAttribute("aria-label"); // its text says it
}
