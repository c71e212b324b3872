// npm run bench [-- engine|peers [lxd|incus]|compute|scale [guests|hosts]]: ratios against the stock peers, measured in one run on this
// machine. The parts of the compute need a running lab (npm run up); scale is not part of all.
import { Processes } from '../openstack/lab/processes.ts';
import { defaultPaths } from '../openstack/lab/settings.ts';
import { say } from '../openstack/lab/progress.ts';
import { benchCompute } from './compute-bench.ts';
import { benchEngine } from './engine-bench.ts';
import { benchPeers, printPeers } from './peer-bench.ts';
import { benchScale } from './scale-bench.ts';
import { printTable, type Row } from './stats.ts';

const wanted = process.argv[2] ?? 'all';
const rows: Row[] = [];
if (wanted === 'all' || wanted === 'engine') {
  say('engine …');
  rows.push(...(await benchEngine()));
}
if (wanted === 'all' || wanted === 'peers') printPeers(await benchPeers(process.argv.slice(3)));
if (['all', 'compute', 'scale'].includes(wanted)) {
  if (new Processes(defaultPaths()).pid('nova-compute-lxd') === undefined) {
    console.error('the compute is measured on a running lab: npm run up, then again');
    process.exitCode = 1;
  } else {
    say(`${wanted === 'scale' ? 'scale' : 'compute'} …`);
    rows.push(...(wanted === 'scale' ? await benchScale(process.argv.slice(3)) : await benchCompute()));
  }
}
printTable(rows);
if (rows.some(({ met }) => !met)) process.exitCode = 1;
