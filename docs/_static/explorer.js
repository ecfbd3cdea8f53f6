"use strict";
// The numbers of larq_filters.recipes.explain, and the responses of the same filter.
// A stage that takes in a share s of its input per step has a pole at z = 1 - s. Shares are kept,
// not poles: 1 - 1e-6 would lose digits.

const number = (re, im = 0) => ({ re, im });
const times = (a, b) => number(a.re * b.re - a.im * b.im, a.re * b.im + a.im * b.re);
const size = (a) => Math.hypot(a.re, a.im);
const FORGOTTEN = 0.01; // as in recipes.explain

// alpha and gamma: real, or a pair of complex conjugates where coupled weight decay rings.
function shares({ eta, lambda, beta, coupled }) {
  const product = eta * lambda;
  if (!(coupled && lambda > 0 && beta > 0)) return [number(product), number(1 - beta)];
  const total = 1 - beta + product;
  const under = total * total - 4 * product;
  if (under < 0) {
    const [re, im] = [total / 2, Math.sqrt(-under) / 2];
    return [number(re, -im), number(re, im)];
  }
  const fast = (total + Math.sqrt(under)) / 2;
  return [number(product / fast), number(fast)];
}

// Steps in which a stage decays to 1/e.
function timeConstant(share) {
  if (share.re === 0 && share.im === 0) return Infinity;
  if (share.im === 0 && share.re < 1) return -1 / Math.log1p(-share.re);
  const radius = Math.hypot(1 - share.re, share.im);
  return radius === 0 ? 0 : -1 / Math.log(radius);
}

// ln of the pole 1 - s: its real part per step, and the angle that it turns.
const logPole = (s) =>
  number(Math.log1p(s.re * s.re + s.im * s.im - 2 * s.re) / 2, Math.atan2(-s.im, 1 - s.re));
const power = (log, n) => {
  const radius = Math.exp(n * log.re);
  return number(radius * Math.cos(n * log.im), radius * Math.sin(n * log.im));
};
const inverse = (a) => number(a.re / (size(a) ** 2), -a.im / (size(a) ** 2));

// The weight of a gradient that is n steps old, up to a factor: (p^(n+1) - q^(n+1)) / (p - q).
function impulse([slow, fast], n) {
  const [p, q] = [logPole(slow), logPole(fast)];
  const apart = number(fast.re - slow.re, fast.im - slow.im); // p - q
  if (size(apart) < 1e-9) return (n + 1) * power(p, n).re;
  const one = fast.re === 1 && fast.im === 0 ? number(0) : power(q, n + 1);
  const other = slow.re === 1 && slow.im === 0 ? number(0) : power(p, n + 1);
  return times(number(other.re - one.re, other.im - one.im), inverse(apart)).re;
}

// |H| at a frequency in rad/step, up to a factor: 1 / |z - p||z - q|.
function gain([slow, fast], frequency) {
  const [re, im] = [-2 * Math.sin(frequency / 2) ** 2, Math.sin(frequency)];
  return 1 / (Math.hypot(re + slow.re, im + slow.im) * Math.hypot(re + fast.re, im + fast.im));
}

// What is left of the initial weight 1 after so many steps without a gradient.
function remaining(setting, [slow, fast], steps) {
  if (!(setting.coupled && setting.lambda > 0 && setting.beta > 0)) {
    return Math.exp(steps * Math.log1p(-slow.re));
  }
  // w is a sum of both modes; after the first step it is 1 - eta*lambda.
  const [p, q] = [logPole(slow), logPole(fast)];
  const first = 1 - setting.eta * setting.lambda;
  const apart = number(fast.re - slow.re, fast.im - slow.im);
  if (size(apart) < 1e-9) {
    const share = 1 - first / (1 - slow.re);
    return power(p, steps).re * (1 - share * steps);
  }
  const inFast = times(number(1 - slow.re - first, -slow.im), inverse(apart)); // (p - first)/(p - q)
  const inSlow = number(1 - inFast.re, -inFast.im);
  return times(inSlow, power(p, steps)).re + times(inFast, power(q, steps)).re;
}

// The step from which on less than 1 % of the initial weight is left.
function forgottenAfter(setting, pair) {
  if (setting.lambda === 0) return Infinity;
  const [slow, fast] = pair;
  if (slow.re === 1 && slow.im === 0) return 1;
  const left = (n) => Math.abs(remaining(setting, pair, n));
  if (slow.im === 0) {
    // Falls from some step on: double until below, then halve the distance.
    let high = 1;
    while (left(high) >= FORGOTTEN) high *= 2;
    let low = high / 2;
    if (high === 1) return 1;
    while (high - low > 1) {
      const middle = Math.floor((low + high) / 2);
      if (left(middle) < FORGOTTEN) high = middle;
      else low = middle;
    }
    return high;
  }
  // It swings through 0: look for the last step at 1 % or more.
  const period = Math.ceil(15 * Math.max(timeConstant(slow), timeConstant(fast), 1));
  let last = 0;
  for (let n = 1; n <= period; n += 1) if (left(n) >= FORGOTTEN) last = n;
  return last + 1;
}

// All numbers of a setting. With white noise as gradients, neighbouring outputs correlate by rho, and
// signs change with probability arccos(rho)/pi (Rice).
function explained(setting) {
  const pair = shares(setting);
  const [slow, fast] = pair;
  const ringing = slow.im !== 0;
  const turn = Math.max(...pair.map((s) => Math.abs(Math.atan2(-s.im, 1 - s.re))));
  const product = times(slow, fast).re;
  const unlike = product / (2 - slow.re - fast.re + product); // 1 - rho
  return {
    pair,
    alpha: ringing ? null : slow.re,
    gamma: ringing ? null : fast.re,
    alpha_time_constant: timeConstant(slow),
    gamma_time_constant: timeConstant(fast),
    ringing_period: turn > 0 ? (2 * Math.PI) / turn : null,
    forgotten_after: forgottenAfter(setting, pair),
    remaining: remaining(setting, pair, setting.steps),
    noise_flips: (2 * Math.asin(Math.sqrt(unlike / 2))) / Math.PI,
  };
}

// What a page shows

const DIGITS = (value) => Number(value.toPrecision(2));
// How a slider's position is a number: logarithmic, rounded to two digits.
const SCALES = {
  eta: { from: 1e-4, to: 100 },
  lambda: { from: 1e-7, to: 1e-2, zero: true },
  alpha: { from: 1e-8, to: 1, zero: true },
  gamma: { from: 1e-3, to: 1 },
  beta: { from: 1e-3, to: 1, left: true }, // 1 - beta is logarithmic
};
const PER_DECADE = 20;
const lastOf = (scale) => Math.round(PER_DECADE * Math.log10(scale.to / scale.from));
const oneMinus = (value) => Number((1 - value).toPrecision(6));

function valueAt(scale, position) {
  if (scale.zero && position < 0) return 0;
  const steps = scale.left ? lastOf(scale) - position : position;
  const value = DIGITS(Math.min(scale.to, scale.from * 10 ** (steps / PER_DECADE)));
  return scale.left ? oneMinus(value) : value;
}
function positionOf(scale, value) {
  const plain = scale.left ? 1 - value : value;
  if (plain <= 0) return scale.zero ? -1 : 0;
  const last = lastOf(scale);
  const steps = Math.max(0, Math.min(last, Math.round(PER_DECADE * Math.log10(plain / scale.from))));
  return scale.left ? last - steps : steps;
}

function short(value) {
  if (value === Infinity) return "∞";
  if (value === 0) return "0";
  if (Math.abs(value) >= 999.5) return Math.round(value).toLocaleString("en-US");
  if (Math.abs(value) < 1e-3) return value.toExponential(2).replace(/\.?0*e-/, "e-");
  return String(Number(value.toPrecision(3)));
}
function inPython(value) {
  const digits = Number(value.toPrecision(6));
  return digits && Math.abs(digits) < 1e-3 ? digits.toExponential() : String(digits);
}

// A line over a logarithmic axis from 1 to the right end, as SVG.
function chart({ points, ticksY, low, high, xLabel, yLabel, label }) {
  const [width, height, left, right, top, bottom] = [340, 215, 56, 10, 10, 42];
  const [first, last] = [Math.log10(points[0][0]), Math.log10(points[points.length - 1][0])];
  const x = (v) => left + ((Math.log10(v) - first) / (last - first)) * (width - left - right);
  const y = (v) => top + ((high - Math.max(low, v)) / (high - low)) * (height - top - bottom);
  const decades = [];
  const every = Math.max(1, Math.ceil((last - first) / 5));
  for (let d = Math.ceil(first - 1e-9); d <= last + 1e-9; d += 1) if (d % every === 0) decades.push(d);
  const name = (d) => (d >= 0 && d < 4 ? String(10 ** d) : `1e${d}`);
  const across = decades
    .map((d) => {
      const at = x(10 ** d).toFixed(1);
      return `<line class="grid" x1="${at}" x2="${at}" y1="${top}" y2="${height - bottom}"/>
        <text x="${at}" y="${height - bottom + 15}" text-anchor="middle">${name(d)}</text>`;
    })
    .join("");
  const up = ticksY
    .map((v) => {
      const at = y(v).toFixed(1);
      return `<line class="grid" x1="${left}" x2="${width - right}" y1="${at}" y2="${at}"/>
        <text x="${left - 6}" y="${Number(at) + 4}" text-anchor="end">${String(v).replace("-", "−")}</text>`;
    })
    .join("");
  const path = points.map(([u, v]) => `${x(u).toFixed(1)},${y(v).toFixed(1)}`).join(" ");
  const middle = (top + height - bottom) / 2;
  return `<svg viewBox="0 0 ${width} ${height}" role="img" aria-label="${label}">${across}${up}
    <polyline class="curve" points="${path}"/>
    <text x="${(left + width - right) / 2}" y="${height - 8}" text-anchor="middle">${xLabel}</text>
    <text transform="translate(14 ${middle}) rotate(-90)" text-anchor="middle">${yLabel}</text></svg>`;
}

function impulseChart({ pair, alpha_time_constant: slow, gamma_time_constant: fast }) {
  const longest = Number.isFinite(slow) ? Math.max(slow, fast) : 20 * Math.max(fast, 5);
  const last = Math.min(1e8, Math.max(10, Math.ceil(5 * longest)));
  const ages = [...new Set(Array.from({ length: 500 }, (_, i) => Math.round(last ** (i / 499))))];
  const values = ages.map((age) => impulse(pair, age));
  const all = [impulse(pair, 0), ...values];
  const most = Math.max(...all.map(Math.abs));
  const low = Math.min(...all) < -1e-3 * most ? -1 : 0;
  return chart({
    points: ages.map((age, i) => [age, values[i] / most]),
    ticksY: low < 0 ? [-1, -0.5, 0, 0.5, 1] : [0, 0.25, 0.5, 0.75, 1],
    low,
    high: 1.05,
    xLabel: "age of a gradient (steps)",
    yLabel: "its weight, relative",
    label: "Impulse response",
  });
}

function frequencyChart({ pair }) {
  const lowest = Math.min(1e-2, Math.max(1e-9, size(pair[0]) / 30));
  const frequencies = Array.from({ length: 400 }, (_, i) => lowest * (Math.PI / lowest) ** (i / 399));
  const gains = frequencies.map((frequency) => gain(pair, frequency));
  const most = Math.max(...gains);
  const decibels = gains.map((value) => 20 * Math.log10(value / most));
  const low = Math.max(-200, Math.floor(Math.min(...decibels) / 20) * 20);
  const step = low < -120 ? 40 : 20;
  return chart({
    points: frequencies.map((frequency, i) => [frequency, decibels[i]]),
    ticksY: Array.from({ length: Math.floor(-low / step) + 1 }, (_, i) => -step * i || 0),
    low,
    high: 5,
    xLabel: "frequency (rad/step)",
    yLabel: "gain (dB)",
    label: "Frequency response",
  });
}

function start(root) {
  const one = (name) => root.querySelector(`[data-name="${name}"]`);
  const setting = { eta: 0.1, lambda: 1e-4, beta: 0.9, coupled: false, perEpoch: 390, steps: 39000 };
  for (const [name, scale] of Object.entries(SCALES)) {
    const slider = one(name);
    slider.min = scale.zero ? -1 : 0;
    slider.max = lastOf(scale);
    slider.addEventListener("input", () => {
      moved(name, valueAt(scale, Number(slider.value)));
      show(name);
    });
  }
  for (const name of ["coupled", "epochs", "perEpoch"]) one(name).addEventListener("input", () => show());

  function moved(name, value) {
    if (name === "gamma") setting.beta = oneMinus(value);
    else if (name !== "alpha") setting[name] = value;
    else if (value === 0) setting.lambda = 0;
    else {
      // alpha is eta times lambda: eta follows, and lambda only where eta ends.
      if (setting.lambda === 0) setting.lambda = 1e-4;
      const { from, to } = SCALES.eta;
      setting.eta = Math.min(to, Math.max(from, value / setting.lambda));
      if (Math.abs(setting.eta * setting.lambda - value) > 1e-9 * value) setting.lambda = value / setting.eta;
    }
  }

  function show(movedName) {
    setting.coupled = one("coupled").value === "coupled";
    setting.perEpoch = Math.max(1, Number(one("perEpoch").value) || 1);
    setting.steps = Math.max(1, Math.round((Number(one("epochs").value) || 1) * setting.perEpoch));
    const result = explained(setting);
    const values = { ...setting, alpha: result.alpha, gamma: result.gamma };
    const follows = setting.coupled && setting.lambda > 0 && setting.beta > 0;
    for (const [name, scale] of Object.entries(SCALES)) {
      const slider = one(name);
      if (name !== movedName && values[name] !== null) slider.value = positionOf(scale, values[name]);
      slider.disabled = follows && (name === "alpha" || name === "gamma");
      const shown = values[name] === null ? "complex" : short(values[name]);
      one(`${name}-value`).textContent = shown;
      slider.setAttribute("aria-valuetext", shown);
    }
    for (const [name, text] of Object.entries(sentences(setting, result))) one(name).textContent = text;
    one("impulse").innerHTML = impulseChart(result);
    one("frequency").innerHTML = frequencyChart(result);
    root.dataset.shown = JSON.stringify({ ...setting, ...result, pair: undefined }, (_, value) =>
      value === Infinity ? "inf" : value,
    );
  }
  show();
}

function sentences(setting, result) {
  const { eta, lambda, beta, coupled, perEpoch, steps } = setting;
  const time = (n) => (n === Infinity ? "never" : `${short(n)} steps = ${short(n / perEpoch)} epochs`);
  const ringing = result.alpha === null;
  let filter;
  if (coupled && lambda > 0 && beta > 0) filter = `recipes.SGD(${inPython(eta)}, ${inPython(beta)}, ${inPython(lambda)}, decoupled=False).filter`;
  else if (lambda === 0) filter = `recipes.SGD(${inPython(eta)}, ${inPython(beta)}).filter`;
  else if (beta === 0) filter = `filters.EMA(${inPython(result.alpha)})`;
  else filter = `filters.CascadedEMA(${inPython(result.alpha)}, ${inPython(result.gamma)})`;
  let redundant;
  if (lambda === 0) {
    redundant = "Without weight decay the filter is an integrator. The learning rate scales its output, and only the sign of the output counts. Learning rate and size of the initial weights are one hyperparameter.";
  } else {
    redundant = `η = ${short(eta)} with λ = ${short(lambda)}, and η = ${short(2 * eta)} with λ = ${short(lambda / 2)} and initial weights of twice the size, train the same bits. Of learning rate, weight decay and initial size, only α and the start count.`;
  }
  let noise;
  if (lambda === 0) noise = "falls with time: an integrator averages ever more gradients";
  else {
    const share = 100 * result.noise_flips;
    const waits = 1 / result.noise_flips;
    noise = `${short(share)} % of the weights: each flips about every ${time(waits)}`;
  }
  const left = 100 * Math.abs(result.remaining);
  return {
    filter: `lqf.optimizers.FilteredFlip(filter=lqf.${filter})`,
    forgets:
      lambda === 0
        ? "never: without weight decay the filter keeps them for good"
        : `after ${time(result.forgotten_after)}`,
    remaining: `${left < 1e-6 ? "less than 1e-6" : short(left)} % of their size after ${short(steps)} steps`,
    memory: lambda === 0 ? "every gradient counts to the end" : `falls to 1/e in ${time(result.alpha_time_constant)}`,
    smoothing: beta === 0 ? "none" : ringing ? "the filter rings, see below" : `falls to 1/e in ${short(result.gamma_time_constant)} steps`,
    ringing: result.ringing_period === null ? "none" : `the sign repeats every ${time(result.ringing_period)}`,
    noise,
    redundant,
  };
}

document.querySelectorAll(".explorer").forEach(start);
