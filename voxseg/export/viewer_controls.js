"use strict";
(() => {
  // What a reader does with a viewer: controls, keys, and where a page opens one.
  const VIEW_KEYS = ["axial", "coronal", "sagittal", "multiplanar", "render"];

  class ControlledViewer extends globalThis.VoxsegViewer {
    // Controls --------------------------------------------------------------------------------

    makeControls() {
      const { image, labels, masks, differences, superpixels, uncertainty } = this.case;
      this.part("image-controls").hidden = !image;
      const hasOver = masks.length > 0 || uncertainty;
      for (const name of ["over-choice", "opacity-choice"]) this.part(name).hidden = !hasOver;
      this.part("regions-choice").hidden = !superpixels;
      this.part("regions-text").textContent = `Borders of ${superpixels} supervoxels`;
      this.part("label-section").hidden = !labels.length;
      this.part("difference-section").hidden = !differences.length;
      this.part("uncertainty-section").hidden = !uncertainty;
      this.part("split").hidden = this.choices.length < 3;
      this.part("gradient").style.background = `linear-gradient(to right, ${this.case.colours.join(", ")})`;
      this.labelRows();
      if (differences.length) {
        const [{ names, colours }] = differences;
        this.part("differences").append(...names.map((name, n) => item(colours[n], name)));
      }
      for (const radio of this.root.querySelectorAll('[name="viewer-view"]')) {
        radio.addEventListener("change", () => this.setView(radio.value));
      }
      this.part("opacity").addEventListener("input", (event) => this.setOpacity(event.target.value / 100));
      this.part("over").addEventListener("change", (event) => this.setOver(event.target.checked));
      for (const name of ["smooth", "regions", "crosshair"]) {
        this.part(name).addEventListener("change", () => this.redraw());
      }
      for (const name of ["low", "high"]) {
        this.part(name).addEventListener("change", () => this.setWindow());
      }
      this.part("split").addEventListener("click", () => this.setSplit(!this.isSplit));
      this.part("home").addEventListener("click", () => this.reset());
      this.part("keys").addEventListener("click", () => this.part("help").showModal());
      this.part("all").addEventListener("click", () => this.hide([]));
      this.part("none").addEventListener("click", () => this.hide(labels.map(({ index }) => index)));
      this.showWindow();
      this.setOpacity(this.opacity);
    }

    labelRows() {
      const { labels, masks } = this.case;
      const rows = labels.map(({ index, value, name, colour, ml }) => {
        const box = document.createElement("input");
        box.type = "checkbox";
        box.checked = true;
        box.addEventListener("change", () => {
          const others = [...this.hidden].filter((one) => one !== index);
          this.hide(box.checked ? others : [...others, index]);
        });
        box.dataset.index = index;
        const volumes = masks.map((mask, n) => {
          const text = ml[n] ? `${Number(ml[n].toPrecision(3))} ml` : "none";
          return masks.length > 1 ? `${mask.name}: ${text}` : text;
        });
        return item(colour, name, `${value} · ${volumes.join(", ")}`, box);
      });
      this.part("labels").append(...rows);
    }

    hide(numbers) {
      this.hidden = new Set(numbers);
      for (const box of this.part("labels").querySelectorAll("input")) {
        box.checked = !this.hidden.has(Number(box.dataset.index));
      }
      this.made.clear();
      this.redraw();
    }

    setView(view) {
      this.view = view;
      this.root.querySelector(`[name="viewer-view"][value="${view}"]`).checked = true;
      this.redraw();
    }

    setOpacity(opacity) {
      this.opacity = Math.min(1, Math.max(0, Math.round(opacity * 20) / 20));
      this.part("opacity").value = this.opacity * 100;
      this.part("opacity-text").textContent = `${Math.round(this.opacity * 100)} %`;
      for (const { nv } of this.visible()) {
        nv.overlayAlphaShader = this.opacity;
        nv.drawScene();
      }
    }

    setOver(isOver) {
      this.isOver = isOver;
      this.part("over").checked = isOver;
      this.redraw();
    }

    setWindow() {
      const [low, high] = ["low", "high"].map((name) => this.part(name).valueAsNumber);
      if (low < high) [this.image.cal_min, this.image.cal_max] = [low, high];
      this.showWindow();
      this.redraw();
    }

    showWindow() {
      const digits = (value) => Number(value.toPrecision(4));
      this.part("low").value = digits(this.image.cal_min);
      this.part("high").value = digits(this.image.cal_max);
    }

    reset() {
      if (this.case.image) [this.image.cal_min, this.image.cal_max] = this.case.image.window;
      this.showWindow();
      for (const { nv } of this.panels) {
        nv.scene.pan2Dxyzmm = [0, 0, 0, 1];
        nv.scene.volScaleMultiplier = 1;
        nv.setRenderAzimuthElevation(110, 10);
      }
      this.goTo(this.case.start);
      this.redraw();
    }

    // Keys ------------------------------------------------------------------------------------

    key(event) {
      const { target } = event;
      if (event.ctrlKey || event.altKey || event.metaKey || this.part("help").open) return;
      const isField = target.matches?.('select, textarea, input[type="number"], input[type="text"]');
      const isMover = target.matches?.('input[type="range"], input[type="radio"]');
      const isArrow = event.key.startsWith("Arrow") || event.key.startsWith("Page");
      if (isField || (isMover && isArrow)) return;
      // niivue listens on its canvases, with other keys.
      if (target.matches?.("canvas") && event.key !== "Tab") event.stopPropagation();
      const act = this.actions(event)[event.key.length === 1 ? event.key.toLowerCase() : event.key];
      if (!act) return;
      event.preventDefault();
      act();
    }

    actions(event) {
      const step = event.shiftKey ? 10 : 1;
      const views = Object.fromEntries(VIEW_KEYS.map((view, n) => [String(n + 1), () => this.setView(view)]));
      const click = (name) => () => this.part(name).click();
      return {
        ...views,
        m: () => this.setOver(!this.isOver),
        "+": () => this.setOpacity(this.opacity + 0.1),
        "=": () => this.setOpacity(this.opacity + 0.1),
        "-": () => this.setOpacity(this.opacity - 0.1),
        s: click("split"), b: click("regions"), x: click("crosshair"), r: click("home"),
        n: () => this.nextChoice(),
        "?": click("keys"),
        ArrowLeft: () => this.step(-1, 0, 0), ArrowRight: () => this.step(1, 0, 0),
        ArrowUp: () => this.step(0, 1, 0), ArrowDown: () => this.step(0, -1, 0),
        PageUp: () => this.step(0, 0, step), PageDown: () => this.step(0, 0, -step),
      };
    }

    // By voxels to the right and up on the screen, and through the slices.
    step(across, up, through) {
      const { nv } = this.panels[0];
      if (this.view === "render" && !through) {
        const { renderAzimuth, renderElevation } = nv.scene;
        for (const panel of this.visible()) {
          panel.nv.setRenderAzimuthElevation(renderAzimuth + 5 * across, renderElevation + 5 * up);
        }
        return;
      }
      // The screen shows right on its left, and in the sagittal plane anterior.
      const moves = {
        coronal: [-across, through, up], sagittal: [through, -across, up],
      };
      nv.moveCrosshairInVox(...(moves[this.view] ?? [-across, up, through]));
    }

    nextChoice() {
      const { select } = this.panels[0];
      select.selectedIndex = (select.selectedIndex + 1) % select.options.length;
      this.draw(this.panels[0]);
    }
  }

  function item(colour, name, note = "", box = null) {
    const row = document.createElement("li");
    const holder = document.createElement(box ? "label" : "span");
    const patch = document.createElement("i");
    patch.style.background = colour;
    const text = document.createElement("span");
    text.append(name);
    if (note) {
      const small = document.createElement("small");
      small.textContent = note;
      text.append(small);
    }
    if (box) holder.append(box, patch, text);
    else row.append(patch, text);
    if (box) row.append(holder);
    return row;
  }

  // Pages: a whole one shows its viewer at once; a report opens one where a button asks for it.

  async function fill(home) {
    const viewer = new ControlledViewer(home, home.dataset.viewer);
    await viewer.start();
    // A link may say where to look: #view=axial&at=12,-4,30 with mm to the right, front and top.
    const words = new URLSearchParams(location.hash.slice(1));
    if (words.has("opacity")) viewer.setOpacity(Number(words.get("opacity")) / 100);
    if (VIEW_KEYS.includes(words.get("view"))) viewer.setView(words.get("view"));
    if (words.get("crosshair") === "off") viewer.part("crosshair").click();
    if (words.get("split")) await viewer.setSplit(words.get("split") === "on");
    const at = (words.get("at") ?? "").split(",").map(Number);
    if (at.length === 3 && at.every(Number.isFinite)) viewer.goTo(at);
    document.title = `${home.dataset.title}, ready`;
  }

  function openBeside(button) {
    const dialog = document.createElement("dialog");
    dialog.className = "viewer-dialog";
    dialog.setAttribute("aria-label", button.dataset.title);
    const bar = document.createElement("div");
    bar.className = "viewer-bar";
    const title = document.createElement("strong");
    title.textContent = button.dataset.title;
    const close = document.createElement("button");
    close.type = "button";
    close.textContent = "Close";
    close.addEventListener("click", () => dialog.close());
    bar.append(title, close);
    dialog.append(bar);
    document.body.append(dialog);
    dialog.showModal();
    const viewer = new ControlledViewer(dialog, button.dataset.viewer);
    dialog.addEventListener("close", () => {
      viewer.close();
      dialog.remove();
      button.focus();
    });
    viewer.start().catch(() => {});
  }

  const home = document.querySelector("main[data-viewer]");
  if (home) {
    fill(home).catch(() => {
      document.title = `${home.dataset.title}, failed`;
    });
  }
  for (const button of document.querySelectorAll("button[data-viewer]")) {
    button.hidden = false;
    button.addEventListener("click", () => openBeside(button));
    if (location.hash === `#viewer-${button.dataset.viewer}`) openBeside(button); // a link to it
  }
})();
