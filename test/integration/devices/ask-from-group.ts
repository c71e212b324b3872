// Joins the control groups of process PID and asks PATH on SOCKET: to the other end it is a process of that container.
import { readFileSync, readdirSync, writeFileSync } from 'node:fs';
import { request } from 'node:http';

const [pid = '', socketPath = '', path = ''] = process.argv.slice(2);

for (const line of readFileSync(`/proc/${pid}/cgroup`, 'utf8').trim().split('\n')) {
  const [, controllers = '', group = ''] = line.split(':');
  const trees = readdirSync('/sys/fs/cgroup');
  const name = controllers === '' ? 'unified' : controllers.replace(/^name=/u, '');
  const tree = trees.includes(name) ? `/sys/fs/cgroup/${name}` : '/sys/fs/cgroup';
  try {
    writeFileSync(`${tree}${group}/cgroup.procs`, `${process.pid}`);
  } catch {
    // one hierarchy is enough
  }
}
const asking = request({ socketPath, path }, (response) => {
  process.stdout.write(`${response.statusCode} `);
  response.on('data', (chunk: Buffer) => {
    process.stdout.write(chunk);
    if (path.startsWith('/1.0/events')) process.exit();
  });
});
asking.on('error', (error) => process.stdout.write(`failed ${error.message}`));
asking.end();
