// Seconds of work: the page is visible and focused and had input in the last 120 s. The rest is idle, or away.

const PAUSE = 120;

export class Activity {
  constructor(clock = () => performance.now() / 1000) {
    this.clock = clock;
    this.active = this.idle = this.away = 0;
    this.last = this.input = clock();
    this.inputs = new Set();
  }

  here() {
    return !document.hidden && document.hasFocus();
  }

  // Called every second, on input, and when the page is left or found again (with what held before).
  tick(was = this.here()) {
    const now = this.clock();
    const span = now - this.last;
    this.last = now;
    if (!was) this.away += span;
    else {
      const until = Math.max(0, Math.min(span, this.input + PAUSE - (now - span)));
      this.active += until;
      this.idle += span - until;
    }
  }

  touched(kind) {
    this.tick();
    this.input = this.clock();
    if (kind) this.inputs.add(kind);
  }

  // What was spent before this page was loaded.
  add({ active = 0, idle = 0, away = 0, inputs = [] }) {
    for (const [name, seconds] of Object.entries({ active, idle, away })) this[name] += seconds;
    inputs.forEach((kind) => this.inputs.add(kind));
  }

  spent() {
    this.tick();
    return { active: this.active, idle: this.idle, away: this.away, inputs: [...this.inputs] };
  }

  effort() {
    this.tick();
    const kinds = [...this.inputs];
    return { idle: Math.round(this.idle), away: Math.round(this.away), input: kinds.length > 1 ? "mixed" : kinds[0] || "none" };
  }
}
