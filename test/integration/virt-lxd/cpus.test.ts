// Processors of a guest, on our engine and on a real LXD: it runs on those that it is given, and on no others.
import { mkdtemp, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { expect, it } from 'vitest';
import { LxdDriver } from '#drivers/virt/lxd/driver.ts';
import { DEFAULT_OPTIONS } from '#drivers/virt/lxd/options.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { silentLog } from '#src/lib/log.ts';
import { execIn } from '../guest-exec.ts';
import { makeBusyboxRootTarball } from '../images.ts';
import { describeWith } from '../support.ts';
import { chosenEngines, PROGRAMS, startEngine } from './engines.ts';
import { busyboxSpec } from './guest-spec.ts';

for (const name of chosenEngines(['lighterd', 'lxd'])) {
  describeWith({ root: true, commands: [PROGRAMS[name], 'busybox'] }, `processors of guests on ${name}`, () => {
    it('are those of its list', async () => {
      const soon = (): AbortSignal => AbortSignal.timeout(60_000);
      const folder = await mkdtemp(join(tmpdir(), 'cpus-'));
      await makeBusyboxRootTarball(join(folder, 'root.tar.gz'));
      await using engine = await startEngine(name);
      const endpoint = { kind: 'unix', socketPath: engine.socketPath } as const;
      const options = { ...DEFAULT_OPTIONS, endpoint, stateFolder: join(folder, 'state') };
      const driver = new LxdDriver({ log: silentLog, host: new LinuxHost(), options });
      await driver.start(soon());
      const { cpus } = await driver.hostFacts(soon());
      const last = cpus.at(-1)?.id ?? 0;
      const spec = busyboxSpec(join(folder, 'root.tar.gz'), 'cpus', { cpuIds: [last] });

      await driver.spawn(spec, { network: async () => [] }, soon());
      const command = ['grep', 'Cpus_allowed_list', '/proc/self/status'];
      const { stdout } = await execIn(engine.client, spec.name, command);
      await driver.destroy(spec.uuid, soon());
      await driver.stop();
      await rm(folder, { recursive: true });

      expect(stdout.trim()).toBe(`Cpus_allowed_list:\t${last}`);
    }, 120_000);
  });
}
