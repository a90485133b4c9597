// Lets the search work where the pages are files, from which browsers start no worker: its script runs in a frame, whose
// `self` has what a worker's has.
if (location.protocol === "file:")
  window.Worker = class {
    constructor(url) {
      this.waiting = [];
      this.frame = document.createElement("iframe");
      this.frame.hidden = true;
      this.frame.srcdoc = "<body></body>"; // so that it is of this page's origin
      this.frame.onload = () => {
        const inside = this.frame.contentWindow;
        inside.postMessage = (data) => setTimeout(() => this.onmessage?.({ data }));
        const script = inside.document.createElement("script");
        script.src = url;
        script.onerror = () => this.onerror?.(new ErrorEvent("error"));
        script.onload = () => {
          const waiting = this.waiting;
          this.waiting = null;
          waiting.forEach((data) => this.postMessage(data));
        };
        inside.document.body.append(script);
      };
      document.body.append(this.frame);
    }
    postMessage(data) {
      if (this.waiting) this.waiting.push(data);
      else setTimeout(() => this.frame.contentWindow?.onmessage?.({ data }));
    }
    terminate() {
      this.frame.remove();
    }
  };
