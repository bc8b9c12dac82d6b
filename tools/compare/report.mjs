// Draws up docs/benchmarks.md and a chart for each scenario from the results.
import { mkdirSync, writeFileSync } from "node:fs";
import { join } from "node:path";

const REFERENCE = "fanfare";

export const median = (numbers) => {
  const sorted = numbers.filter(Number.isFinite).sort((a, b) => a - b);
  if (sorted.length === 0) return undefined;
  const middle = sorted.length >> 1;
  return sorted.length % 2 ? sorted[middle] : (sorted[middle - 1] + sorted[middle]) / 2;
};

const shown = (value, digits) =>
  value === undefined ? "–" : value.toLocaleString("en", { minimumFractionDigits: digits, maximumFractionDigits: digits });

// The figures of one server in one scenario: medians of its rounds.
function figuresOf(scenario, cell) {
  return scenario.figures.map((figure) =>
    figure.text ? figure.of(cell.reports[0]) : median(cell.reports.map((report) => figure.of(report))));
}

// True when `value` beats the reference by more than rounding.
const beats = (figure, value, reference) =>
  !figure.aside && reference !== undefined && value !== undefined && (figure.less ? value < reference * 0.995 : value > reference * 1.005);

// More of a core than this for anything else, and a scenario was not measured alone.
export const NOISE = 0.1;

// `results`: by scenario, each as run.mjs stores it.
export function writeReport(results, known, scenarios, out, quick) {
  mkdirSync(join(out, "images"), { recursive: true });
  const there = scenarios.filter(({ id }) => results[id]);
  const latest = there.map(({ id }) => results[id]).sort((a, b) => (a.date < b.date ? 1 : -1))[0];
  const parts = [head(there.map(({ id }) => results[id]), latest, known, quick), goals(there, results, known)];
  let failed = false;
  for (const scenario of there) {
    const result = results[scenario.id];
    failed ||= Object.entries(result.cells).some(([id, cell]) => known[id]?.kind === "fanfare" && (cell.failures.length > 0 || cell.reports.some((report) => !report.accounted)));
    writeFileSync(join(out, "images", `bench-${scenario.id}.svg`), chart(scenario, result.cells, known));
    parts.push(section(scenario, result, latest, known));
  }
  parts.push(foot());
  writeFileSync(join(out, "benchmarks.md"), parts.filter(Boolean).join("\n"));
  return failed;
}

// One cell of a table: the first line, without what would end the cell.
function short(text) {
  const line = text.split("\n")[0].replaceAll("|", "/");
  return line.length > 160 ? `${line.slice(0, 160)}…` : line;
}

const day = (result) => result.date.slice(0, 10);
const referenceOf = (scenario) => scenario.reference ?? REFERENCE;

function head(all, latest, known, quick) {
  const versions = Object.assign({}, ...all.map(({ versions }) => versions), latest.versions);
  const missing = Object.assign({}, ...all.map(({ missing }) => missing));
  const shownIn = Object.keys(known).filter((id) => !known[id].onlyIn);
  const rows = shownIn.filter((id) => versions[id]).map((id) => `| ${known[id].name} | ${versions[id]} |`);
  const lacking = shownIn.filter((id) => missing[id]).map((id) => `| ${known[id].name} | not run: ${missing[id]} |`);
  const { machine } = latest;
  const days = [...new Set(all.map(day))].sort();
  const minutes = all.reduce((sum, { minutes }) => sum + minutes, 0).toFixed(0);
  const noisy = all.filter(({ others }) => others > NOISE).length;
  const quiet = noisy ? ` **In ${noisy} of them other work shared the machine; they say so.**` : " Nothing else ran on the machine.";
  return `# Benchmarks

Written by \`make compare${quick ? " QUICK=1" : ""}\`; do not edit. Each figure is the median of the rounds of one run, in which the servers took turns${
    machine.pinned ? ", each alone on core 0 with the load generator on core 1" : ", sharing all cores with the load generator"
  }. Only ratios
within a table mean anything: another machine, or another day, has other microseconds. In every run every receiver checked every
message; where something was missing, doubled or out of order, the row says so. A figure in **bold** beats Fanfare's first row.

| machine | ${machine.cpu}, ${machine.cores} cores, ${machine.memory} |
| --- | --- |
| kernel | ${machine.kernel}, io_uring ${machine.uring} |
| date | ${days.length > 1 ? `${days[0]} to ${days.at(-1)}` : days[0]}; ${all.length} scenarios, ${minutes} minutes.${quiet} |

| server | version |
| --- | --- |
${[...rows, ...lacking].join("\n")}

The *floor* is a server without features that only calls the kernel: \`send\` makes one system call for each message and subscriber,
\`coalesce\` one for each subscriber and turn of its loop, \`io_uring\` submits those together. Nobody can be expected to go below it.
`;
}

// What was set as a goal, and what was measured.
function goals(scenarios, results, known) {
  const rows = scenarios.flatMap((scenario) => {
    const { cells, peers } = medians(scenario, results[scenario.id], known);
    return (scenario.goals ?? []).map((goal) => {
      const value = goal.of((id, index = 0) => cells[id]?.[index], (index = 0) => best(scenario.figures[index], peers.map((figures) => figures[index])));
      const limit = goal.most !== undefined ? `at most ${goal.most}` : `at least ${goal.least}`;
      const held = goal.most !== undefined ? value <= goal.most : value >= goal.least;
      const measured = Number.isFinite(value) ? shown(value, value >= 100 ? 0 : 2) : "–";
      const words = !Number.isFinite(value) ? "not measured" : held ? "reached" : `**missed by ${missedBy(value, goal)} %**`;
      return `| [${scenario.title.split(":")[0]}](#${anchor(scenario.title)}) | ${goal.text} | ${limit} | ${measured} | ${words} |`;
    });
  });
  return rows.length && `## Goals

| scenario | what | goal | measured | |
| --- | --- | --- | ---: | --- |
${rows.join("\n")}
`;
}

const missedBy = (value, { most, least }) => shown(Math.abs(most !== undefined ? value / most - 1 : 1 - value / least) * 100, 0);
const best = (figure, values) => (figure.less ? Math.min : Math.max)(...values.filter(Number.isFinite));
const anchor = (title) => title.toLowerCase().replace(/[^\p{L}\p{N} -]/gu, "").replaceAll(" ", "-");

// The medians of all servers by their name, and of the peers.
function medians(scenario, { cells }, known) {
  const measured = Object.entries(cells).filter(([, cell]) => cell.reports.length > 0);
  const all = measured.map(([id, cell]) => [id, figuresOf(scenario, cell)]);
  return { cells: Object.fromEntries(all), peers: all.filter(([id]) => known[id].kind === "peer").map(([, figures]) => figures) };
}

function section(scenario, result, latest, known) {
  const { cells, missing } = result;
  const own = referenceOf(scenario);
  const reference = cells[own]?.reports.length ? figuresOf(scenario, cells[own]) : [];
  const titles = scenario.figures.map(({ title, unit }) => (unit ? `${title}, ${unit}` : title));
  const nothing = titles.map(() => "–").join(" | ");
  const rows = Object.keys(known).flatMap((id) => {
    if (missing[id]) return [`| ${known[id].name} | ${nothing} | – | not run: ${missing[id]} |`];
    const cell = cells[id];
    if (!cell) return [];
    if (cell.reports.length === 0) return [`| ${known[id].name} | ${nothing} | – | not run: ${short(cell.failures[0])} |`];
    const figures = figuresOf(scenario, cell);
    const columns = scenario.figures.map((figure, index) => {
      if (figure.text) return figures[index] ?? "–";
      const text = shown(figures[index], figure.digits);
      return known[id].kind === "peer" && beats(figure, figures[index], reference[index]) ? `**${text}**` : text;
    });
    const ratio = id === own ? "1" : shown(figures[0] / reference[0] || undefined, 2);
    return [`| ${known[id].name} | ${columns.join(" | ")} | ${ratio} | ${audit(cell)} |`];
  });
  const without = (scenario.without ?? []).map((id) => known[id].name).join(", ");
  const rounds = Math.max(0, ...Object.values(cells).map((cell) => cell.reports.length));
  return `## ${scenario.title}

${scenario.text}${without ? ` (${without} is the same path here and was not run.)` : ""}

![${scenario.figures[0].title}](images/bench-${scenario.id}.svg)

| server | ${titles.join(" | ")} | first column ÷ ${own === REFERENCE ? "Fanfare's" : "first row's"} | audit |
| --- | ${titles.map(() => "---:").join(" | ")} | ---: | --- |
${rows.join("\n")}

\`fanfare-load ${scenario.args.join(" ")}${scenario.seconds ? ` --duration ${scenario.seconds}s` : ""}\`, ${rounds} round(s), ${day(result)}.${remarks(result, latest)}
`;
}

// What sets a scenario's results apart from the page's: other work, other versions.
function remarks(result, latest) {
  const noise = result.others > NOISE ? [` **Other work took ${shown(result.others * 100, 0)} % of a core meanwhile.**`] : [];
  const [then, now] = [result, latest].map(({ versions }) => versions[REFERENCE] ?? versions["coalesce-0"]);
  const older = then !== now ? [` It was an earlier Fanfare: ${then}.`] : [];
  return [...noise, ...older].join("");
}

function audit(cell) {
  const faulty = cell.reports.filter((report) => !report.accounted);
  const text = faulty.length === 0 ? "all accounted for" : `${faulty.length} of ${cell.reports.length} runs not: ${faulty[0].faults.join(", ")}`;
  return cell.failures.length ? `${text}; then failed: ${short(cell.failures[0])}` : text;
}

function foot() {
  return `## How to repeat it

\`\`\`
make compare            # everything; some 20 minutes on two cores that nothing else uses
make compare QUICK=1    # a look in a few minutes; writes into target/compare/quick and leaves this page alone
make compare ARGS='--only idle,fairness'   # these anew, the others as they were measured last; --list names them
make compare ARGS='--only fanout-1,rate --servers fanfare,floor-uring,bun --rounds 5'   # some servers; writes into target/compare/part
make compare ARGS=--report    # draw this page up again from the results that are there
\`\`\`

It needs Node with npm, and for NATS and Nchan a Debian with apt-get; everything goes into \`target/compare\`, the results of each scenario
as JSON with their date. The servers' own programs are in \`tools/compare/servers\`, all with compression off. CPU time and memory are
those of the server's process and its children, from \`/proc\`.
\`generator CPU\` is what the load generator itself needed: where it is larger than the server's, the generator was the
bottleneck of the throughput, not of the CPU figures. \`make profile\` shows where Fanfare's own time goes.
`;
}

const escape = (text) => String(text).replace(/[&<>"]/g, (c) => ({ "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" })[c]);

// Horizontal bars of the first figure, best first.
function chart(scenario, cells, known) {
  const figure = scenario.figures[0];
  const bars = Object.entries(cells)
    .filter(([, cell]) => cell.reports.length > 0)
    .map(([id, cell]) => ({ id, value: figuresOf(scenario, cell)[0], values: cell.reports.map((report) => figure.of(report)) }))
    .filter(({ value }) => value !== undefined)
    .sort((a, b) => (figure.less ? a.value - b.value : b.value - a.value));
  const [left, width, step, top] = [210, 400, 26, 44];
  const most = Math.max(...bars.flatMap(({ values }) => values), 1e-9);
  const scale = (value) => (value / most) * width;
  const rows = bars.map(({ id, value, values }, index) => {
    const y = top + index * step;
    const [low, high] = [scale(Math.min(...values)), scale(Math.max(...values))];
    const spread = values.length > 1 ? `<path class="spread" d="M${(left + low).toFixed(1)} ${y + 9}H${(left + high).toFixed(1)}"/>` : "";
    return `<text class="name" x="${left - 8}" y="${y + 13}">${escape(known[id].name)}</text>
<rect class="${known[id].kind}" x="${left}" y="${y}" width="${Math.max(scale(value), 1).toFixed(1)}" height="18" rx="2"/>${spread}
<text x="${(left + Math.max(scale(value), high) + 8).toFixed(1)}" y="${y + 13}">${shown(value, figure.digits)}</text>`;
  });
  const height = top + bars.length * step + 12;
  const which = `${figure.title}${figure.unit ? `, ${figure.unit}` : ""} – ${figure.less ? "less" : "more"} is better`;
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 720 ${height}" role="img" aria-label="${escape(scenario.title)}: ${escape(which)}">
<style>
text { font: 13px system-ui, sans-serif; fill: #24292f }
.title { font-weight: 600; font-size: 14px } .name { text-anchor: end }
.fanfare { fill: #d9480f } .floor { fill: #adb5bd } .peer { fill: #5c7cfa }
.spread { stroke: #24292f; stroke-opacity: .55; stroke-width: 2 }
@media (prefers-color-scheme: dark) { text { fill: #e6edf3 } .spread { stroke: #e6edf3 } .floor { fill: #6e7681 } }
</style>
<text class="title" x="8" y="20">${escape(which)}</text>
${rows.join("\n")}
</svg>
`;
}
