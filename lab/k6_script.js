// Sends requests at a constant rate and counts what came back. load.py puts its settings into CONFIG; nothing else differs
// between runs.
import exec from 'k6/execution';
import http from 'k6/http';
import { Counter } from 'k6/metrics';

const config = __CONFIG__;

export const options = {
  discardResponseBodies: true,
  summaryTrendStats: ['avg', 'max', 'p(50)', 'p(95)', 'p(99)'],
  scenarios: {
    load: {
      executor: 'constant-arrival-rate',
      rate: config.rate,
      timeUnit: config.timeUnit,
      duration: config.duration,
      preAllocatedVUs: config.ready,
      maxVUs: config.most,
      gracefulStop: config.timeout,
    },
  },
};

// k6 wants every metric made before the run; a status outside the list is counted as "other".
const statuses = {};
for (let i = 0; i < config.targets.length; i++) {
  for (const status of config.statuses.concat('other')) {
    statuses[`${i}_${status}`] = new Counter(`target_${i}_status_${status}`);
  }
}
const answered = {};
config.headerValues.forEach((value, i) => { answered[value] = new Counter(`header_${i}`); });

// Which target is next follows the weights exactly, not by chance: 90/10 sends 90 and 10 of every 100.
const turns = [];
config.targets.forEach((target, i) => { for (let n = 0; n < target.weight; n++) turns.push(i); });

export default function () {
  const i = turns[exec.scenario.iterationInTest % turns.length];
  const target = config.targets[i];
  const response = http.request(target.method, target.url, target.body, { headers: target.headers, timeout: config.timeout, redirects: 0 });
  (statuses[`${i}_${response.status}`] || statuses[`${i}_other`]).add(1);
  const counter = answered[response.headers[config.header]];
  if (counter) counter.add(1);
}

export function handleSummary(data) {
  return { stdout: JSON.stringify(data.metrics) };
}
