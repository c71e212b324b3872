// The peer: Nova's own compute in place of ours, with its fake hypervisor. It makes no guest and plugs nothing, so that what is
// left is what it does with conductor, Neutron and Placement.
import { mkdirSync, readFileSync, rmSync } from 'node:fs';
import { join } from 'node:path';
import { overrideFile, startCompute } from '../openstack/lab/node.ts';
import { waitForStatus } from '../openstack/lab/first-server.ts';
import { rabbitctl } from '../openstack/lab/infrastructure.ts';
import { COMPUTE_HOST } from '../openstack/lab/settings.ts';
import { cloud, deleteServer, newServer, paths, processes } from '../openstack/lab/suite.ts';

const NAME = 'stock-compute';
const START = 'import sys; from nova.cmd.compute import main; sys.exit(main())';

/** Whether somebody takes the host's messages: a compute does when it has looked at its instances. */
async function consumes(): Promise<boolean> {
  const queues = await rabbitctl(paths, 'list_queues', 'name', 'consumers');
  return queues.split('\n').includes(`compute.${COMPUTE_HOST}\t1`);
}

export class StockCompute implements AsyncDisposable {
  readonly #state = join(paths.data, NAME);

  /** Ours stops; resolves when the stock one has built a server. */
  async start(): Promise<void> {
    await processes.stop('nova-compute-lxd');
    mkdirSync(this.#state, { recursive: true });
    const override = overrideFile(
      paths,
      NAME,
      `[DEFAULT]
compute_driver = fake.MediumFakeDriver
state_path = ${this.#state}
vif_plugging_is_fatal = false
vif_plugging_timeout = 0
`,
    );
    const files = [paths.computeConf, override].flatMap((file) => ['--config-file', file]);
    rmSync(processes.logFile(NAME), { force: true });
    processes.start({ name: NAME, argv: ['/usr/bin/python3', '-c', START, ...files] });
    await processes.waitFor(NAME, consumes);
    const warm = await newServer({ name: 'bench-stock', network: 'none' });
    await waitForStatus(cloud, warm, 'ACTIVE');
    await deleteServer(warm);
  }

  /** Seconds from the cast to `active` saved, of one server that is there. */
  secondsOf(id: string): number {
    const line = new RegExp(`instance: ${id}\\] Took ([\\d.]+) seconds to build instance`);
    const seconds = line.exec(readFileSync(processes.logFile(NAME), 'utf8'))?.[1];
    if (seconds === undefined) throw new Error(`the stock compute's log has no build of ${id}`);
    return Number(seconds);
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await processes.stop(NAME);
    rmSync(this.#state, { recursive: true, force: true });
    startCompute(paths, processes);
  }
}
