"use strict";
(() => {
  // Every part of a viewer has a data-part; what a case holds stands in blocks of the page.
  const VIEWS = { axial: 0, coronal: 1, sagittal: 2, multiplanar: 3, render: 4 };
  const REGION_COLOUR = [255, 213, 74];
  const BARELY = 0.004; // opacity inside a region: niivue draws its rim only if there is some
  const THROUGH = 0.25; // opacity of the image in 3D, so that labels inside it are seen
  const OVERLAY_NAME = "uncertainty-map";

  const bytesOf = (base64) => Uint8Array.from(atob(base64), (letter) => letter.charCodeAt(0));
  const block = (id) => document.getElementById(id).textContent;

  async function startNiivue() {
    if (globalThis.niivue) return globalThis.niivue;
    const packed = new Blob([bytesOf(block("viewer-niivue"))]).stream();
    const script = document.createElement("script");
    // The page's policy knows the hash of this text, and lets no other run.
    script.textContent = await new Response(
      packed.pipeThrough(new DecompressionStream("gzip")),
    ).text();
    document.head.append(script);
    if (!globalThis.niivue) throw new Error("the browser did not let the drawing script run");
    return globalThis.niivue;
  }

  function refuseOldBrowsers() {
    const canvas = document.createElement("canvas");
    if (!globalThis.DecompressionStream || !globalThis.WebGL2RenderingContext) {
      throw new Error("this browser is too old; use one of 2023 or later");
    }
    const context = canvas.getContext("webgl2");
    if (!context) throw new Error("this browser has no WebGL 2; switch on hardware acceleration");
    context.getExtension("WEBGL_lose_context")?.loseContext();
  }

  class Viewer {
    constructor(home, number) {
      this.number = number;
      this.case = JSON.parse(block(`viewer-case-${number}`));
      home.append(document.getElementById("viewer-frame").content.cloneNode(true));
      this.root = home.lastElementChild;
      this.view = "multiplanar";
      this.isOver = true;
      this.opacity = 0.5;
      this.hidden = new Set(); // numbers of labels
      this.panels = [];
      this.onKey = (event) => this.key(event);
    }

    part(name) {
      return this.root.querySelector(`[data-part="${name}"]`);
    }

    async start() {
      try {
        refuseOldBrowsers();
        this.niivue = await startNiivue();
        await this.readVolumes();
        this.part("message").hidden = true;
        for (const name of ["tools", "body", "readout"]) this.part(name).hidden = false;
        this.makeControls();
        await this.addPanel();
        this.goTo(this.case.start);
        // Each picture takes its own memory on the graphics card: small screens get one.
        await this.setSplit(this.choices.length > 2 && innerWidth > 760);
        document.addEventListener("keydown", this.onKey, true);
        this.root.dataset.state = "ready";
      } catch (error) {
        this.part("message").hidden = false;
        this.part("message").textContent = `The viewer could not start: ${error.message}.`;
        this.root.dataset.state = "failed";
        throw error;
      }
    }

    close() {
      document.removeEventListener("keydown", this.onKey, true);
      for (const { nv } of this.panels) {
        nv.cleanup();
        nv.gl.getExtension("WEBGL_lose_context")?.loseContext();
      }
      this.root.remove();
    }

    // Volumes ---------------------------------------------------------------------------------

    async readVolumes() {
      new this.niivue.Niivue({ logLevel: "error" }); // or it remarks on labels as if on images
      const read = (name, colormap = "gray") =>
        this.niivue.NVImage.loadFromBase64({
          base64: block(`viewer-${this.number}-${name}`), name: `${name}.nii.gz`, colormap,
        });
      const { image, masks, uncertainty, superpixels } = this.case;
      this.masks = [];
      for (const mask of masks) this.masks.push(await read(mask.volume));
      this.regions = superpixels ? await read("superpixels") : null;
      this.uncertainty = uncertainty ? await read("uncertainty") : null;
      const some = this.masks[0] ?? this.uncertainty ?? this.regions;
      this.image = image ? await read("image") : some.clone();
      if (!image) this.image.img.fill(0);
      [this.image.cal_min, this.image.cal_max] = image ? image.window : [0, 1];
      this.choices = [
        ...masks.map(({ name }, n) => ({ key: `mask-${n}`, name })),
        ...this.case.differences.map(({ name }, n) => ({ key: `difference-${n}`, name })),
        ...(uncertainty ? [{ key: "uncertainty", name: "uncertainty" }] : []),
        { key: "nothing", name: "image alone" },
      ];
      this.made = new Map(); // overlays by key, as they are drawn
    }

    overlay(key) {
      if (!this.isOver || key === "nothing") return null;
      if (key === "uncertainty") return this.uncertainty;
      if (!this.made.has(key)) this.made.set(key, this.makeOverlay(key));
      return this.made.get(key);
    }

    makeOverlay(key) {
      const [kind, number] = key.split("-");
      if (kind === "mask") {
        const made = this.masks[number].clone();
        made.img = this.shown(number);
        made.setColormapLabel(lookup(this.case.labels));
        return made;
      }
      const { first, second, colours } = this.case.differences[number];
      const made = this.masks[first].clone();
      const [a, b] = [this.shown(first), this.shown(second)];
      made.img = a.map((one, n) => (one === b[n] ? 0 : b[n] === 0 ? 1 : one === 0 ? 2 : 3));
      made.setColormapLabel(lookup(colours.map((colour, n) => ({ index: n + 1, colour }))));
      return made;
    }

    // What is hidden is left out of the numbers: where labels meet, niivue draws hidden ones too.
    shown(number) {
      const source = this.masks[number].img;
      return this.hidden.size ? source.map((one) => (this.hidden.has(one) ? 0 : one)) : source;
    }

    // Panels ----------------------------------------------------------------------------------

    async addPanel() {
      const { key } = this.choices[this.panels.length];
      const figure = document.createElement("figure");
      figure.className = "viewer-panel";
      const select = document.createElement("select");
      select.setAttribute("aria-label", `What picture ${this.panels.length + 1} shows`);
      for (const choice of this.choices) select.append(new Option(choice.name, choice.key));
      select.value = key;
      const caption = document.createElement("figcaption");
      caption.append(select);
      const frame = document.createElement("div");
      frame.className = "viewer-canvas";
      const canvas = document.createElement("canvas");
      canvas.setAttribute("role", "img");
      frame.append(canvas);
      figure.append(caption, frame);
      this.part("panels").append(figure);
      const nv = new this.niivue.Niivue({
        backColor: [0, 0, 0, 1], crosshairColor: [0.35, 0.85, 0.45, 0.7], crosshairWidthUnit: "mm",
        crosshairWidth: this.hairWidth(), crosshairGap: this.hairWidth() * 8, show3Dcrosshair: true,
        fontColor: [1, 1, 1, 1], isNearestInterpolation: true, isRadiologicalConvention: true,
        isSliceMM: true, sagittalNoseLeft: true, showAllOrientationMarkers: true,
        multiplanarShowRender: this.niivue.SHOW_RENDER?.NEVER ?? 0, dragAndDropEnabled: false,
        dragMode: this.niivue.DRAG_MODE?.slicer3D ?? 4, loadingText: "", logLevel: "error",
        atlasOutline: 1, isColorbar: false, multiplanarPadPixels: 4,
      });
      await nv.attachToCanvas(canvas, false);
      const longest = Math.max(...this.image.dimsRAS.slice(1, 4));
      if (longest > nv.uiData.max3D) {
        throw new Error(`this device draws volumes of at most ${nv.uiData.max3D} voxels an axis`);
      }
      nv.setRadiologicalConvention(true);
      nv.setSliceMM(true);
      nv.addColormap(OVERLAY_NAME, this.case.gradient);
      if (this.uncertainty) {
        this.uncertainty.colormap = OVERLAY_NAME;
        [this.uncertainty.cal_min, this.uncertainty.cal_max] = [0, 1];
      }
      outlineText(nv);
      const resize = nv.resizeListener.bind(nv);
      nv.resizeListener = () => canvas.offsetWidth && resize(); // nothing to draw where it is hidden
      nv.onVolumeUpdated = () => nv.updateInterpolation(0, this.part("smooth").checked);
      nv.onLocationChange = () => this.moved(nv);
      const panel = { nv, figure, select, canvas };
      select.addEventListener("change", () => this.draw(panel));
      this.panels.push(panel);
      nv.addVolume(this.image);
      if (this.regions) {
        nv.drawOpacity = 0;
        nv.drawRimOpacity = 0.7;
        nv.loadDrawing(this.regions);
        const all = (value) => Array(256).fill(value);
        const [red, green, blue] = REGION_COLOUR;
        nv.setDrawColormap({
          R: all(red), G: all(green), B: all(blue), A: [0, ...Array(255).fill(255)],
        });
      }
      this.draw(panel);
    }

    // In mm: thinner than a voxel where the volume is small, and never lost where it is large.
    hairWidth() {
      const { dimsRAS, pixDimsRAS } = this.image;
      return Math.max(...[1, 2, 3].map((axis) => dimsRAS[axis] * pixDimsRAS[axis])) / 250;
    }

    draw({ nv, select, canvas }) {
      const over = this.overlay(select.value);
      const isRender = this.view === "render";
      this.image.opacity = isRender && over ? THROUGH : 1;
      nv.volumes = over ? [this.image, over] : [this.image];
      nv.overlays = nv.volumes.slice(1);
      nv.overlayAlphaShader = this.opacity;
      nv.drawOpacity = this.regions && this.part("regions").checked && !isRender ? BARELY : 0;
      nv.setCrosshairWidth(this.part("crosshair").checked ? this.hairWidth() : 0);
      nv.opts.show3Dcrosshair = this.part("crosshair").checked;
      nv.setSliceType(VIEWS[this.view]);
      nv.updateGLVolume();
      const name = this.choices.find(({ key }) => key === select.value).name;
      const plane = this.root.querySelector(`[value="${this.view}"] + span`).textContent;
      canvas.setAttribute("aria-label", `${plane}: ${name} over ${this.case.name}`);
    }

    visible() {
      return this.isSplit ? this.panels : this.panels.slice(0, 1);
    }

    redraw() {
      for (const panel of this.visible()) this.draw(panel);
    }

    async setSplit(isSplit) {
      const most = Math.min(3, this.choices.length - 1);
      while (isSplit && this.panels.length < most) await this.addPanel();
      this.isSplit = isSplit && this.panels.length > 1;
      const shown = this.visible();
      for (const panel of this.panels) panel.figure.hidden = !shown.includes(panel);
      this.part("split").setAttribute("aria-pressed", String(Boolean(this.isSplit)));
      const nvs = shown.map(({ nv }) => nv);
      for (const nv of nvs) nv.broadcastTo(nvs.filter((one) => one !== nv), { "2d": true, "3d": true });
      for (const nv of nvs) nv.resizeListener();
      const [first] = this.panels;
      for (const { nv } of shown.slice(1)) nv.scene.crosshairPos = first.nv.scene.crosshairPos.slice();
      this.redraw();
    }

    // Where the crosshair is ------------------------------------------------------------------

    goTo(mm) {
      const { nv } = this.panels[0];
      nv.scene.crosshairPos = nv.mm2frac(mm);
      nv.createOnLocationChange();
      nv.drawScene();
    }

    moved(nv) {
      const place = nv.scene.crosshairPos;
      for (const other of this.visible()) {
        if (other.nv === nv || other.nv.scene.crosshairPos.every((x, n) => x === place[n])) continue;
        other.nv.scene.crosshairPos = place.slice();
        other.nv.drawScene();
      }
      this.say(nv.frac2mm(place, 0, true), nv.frac2vox(place));
    }

    say(mm, voxel) {
      const [nx, ny, nz] = this.image.dimsRAS.slice(1, 4);
      const [x, y, z] = [nx, ny, nz].map((n, i) => Math.min(n - 1, Math.max(0, Math.round(voxel[i]))));
      const at = x + nx * (y + ny * z);
      const axes = ["RL", "AP", "SI"].map((ways, i) => {
        const length = Math.abs(mm[i]).toFixed(1);
        return `${ways[mm[i] < 0 ? 1 : 0]} ${length}`;
      });
      const rows = [["Place", `${axes.join(", ")} mm`]];
      const { image, masks, labels } = this.case;
      if (image) rows.push(["Image", grey(this.image, this.image.img[at], image)]);
      const names = new Map(labels.map(({ index, name }) => [index, name]));
      masks.forEach(({ name }, n) => {
        const label = this.masks[n].img[at];
        rows.push([name, label ? (names.get(label) ?? "?") : "–"]);
      });
      if (this.uncertainty) rows.push(["Uncertainty", (this.uncertainty.img[at] / 255).toFixed(2)]);
      this.part("readout").replaceChildren(...rows.map(([name, text]) => {
        const row = document.createElement("span");
        const head = document.createElement("b");
        head.textContent = name;
        row.append(head, text);
        return row;
      }));
    }
  }

  // White letters are lost on a bright image without a dark rim, and at the edge of the canvas.
  function outlineText(nv) {
    const plain = nv.drawText.bind(nv);
    nv.drawText = ([left, top], text, scale = 1, colour = null) => {
      const size = nv.fontPx * scale;
      const within = (place, room) => Math.max(4, Math.min(place, room - 4));
      const x = within(left, nv.canvas.width - nv.textWidth(size, text));
      const y = within(top, nv.canvas.height - size);
      for (const [dx, dy] of [[-2, 0], [2, 0], [0, -2], [0, 2]]) {
        plain([x + dx, y + dy], text, scale, [0, 0, 0, 1]);
      }
      plain([x, y], text, scale, colour);
    };
  }

  function lookup(labels) {
    const rows = [{ index: 0, colour: "#000000" }, ...labels];
    const channel = (place) => rows.map(({ colour }) => parseInt(colour.slice(place, place + 2), 16));
    return {
      R: channel(1), G: channel(3), B: channel(5), A: rows.map(({ index }) => (index ? 255 : 0)),
      I: rows.map(({ index }) => index),
    };
  }

  function grey(image, byte, { range, is_exact: isExact }) {
    const value = range[0] + (byte * (range[1] - range[0])) / 255;
    if (isExact) return String(Number(value.toPrecision(6)));
    const text = String(Number(value.toPrecision(4)));
    return byte === 0 ? `≤ ${text}` : byte === 255 ? `≥ ${text}` : `about ${text}`;
  }

  globalThis.VoxsegViewer = Viewer;
})();
