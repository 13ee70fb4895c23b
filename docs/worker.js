// Search in pages that are opened as files: browsers start no worker from there, so its script runs in
// a frame instead, and messages go between the two windows' objects.
if (location.protocol === "file:") {
  window.Worker = class extends EventTarget {
    constructor(address) {
      super();
      const frame = document.createElement("iframe");
      frame.hidden = true;
      document.body.append(frame);
      this.inside = frame.contentWindow;
      this.inside.postMessage = (data) => setTimeout(() => this.tell(this, data));
      const script = this.inside.document.createElement("script");
      script.src = new URL(address, document.baseURI);
      this.ready = new Promise((done) => (script.onload = done));
      this.inside.document.head.append(script);
    }

    tell(target, data) {
      const event = new MessageEvent("message", { data: structuredClone(data) });
      target.dispatchEvent(event);
      if (target === this) this.onmessage?.(event);
    }

    postMessage(data) {
      this.ready.then(() => setTimeout(() => this.tell(this.inside, data)));
    }

    terminate() {
      this.inside.frameElement.remove();
    }
  };
}
