// npm run bench [-- engine|peers [lxd|incus]|compute]: ratios against the stock peers, measured in one run on this machine. The compute's
// part needs a running lab (npm run up).
import { Processes } from '../openstack/lab/processes.ts';
import { defaultPaths } from '../openstack/lab/settings.ts';
import { say } from '../openstack/lab/progress.ts';
import { benchCompute } from './compute-bench.ts';
import { benchEngine } from './engine-bench.ts';
import { benchPeers, printPeers } from './peer-bench.ts';
import { printTable, type Row } from './stats.ts';

const wanted = process.argv[2] ?? 'all';
const rows: Row[] = [];
if (wanted === 'all' || wanted === 'engine') {
  say('engine …');
  rows.push(...(await benchEngine()));
}
if (wanted === 'all' || wanted === 'peers') printPeers(await benchPeers(process.argv.slice(3)));
if (wanted === 'all' || wanted === 'compute') {
  if (new Processes(defaultPaths()).pid('nova-compute-lxd') === undefined) {
    console.error('the compute is measured on a running lab: npm run up, then again');
    process.exitCode = 1;
  } else {
    say('compute …');
    rows.push(...(await benchCompute()));
  }
}
printTable(rows);
if (rows.some(({ met }) => !met)) process.exitCode = 1;
