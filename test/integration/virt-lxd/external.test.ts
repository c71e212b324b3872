// The virt contract on an engine that runs already, such as an Incus: TEST_ENGINE_SOCKET names its socket.
import { mkdtemp, readFile, rm } from 'node:fs/promises';
import { tmpdir } from 'node:os';
import { join } from 'node:path';
import { describe } from 'vitest';
import { LxdDriver } from '#drivers/virt/lxd/driver.ts';
import { DEFAULT_OPTIONS } from '#drivers/virt/lxd/options.ts';
import { LinuxHost } from '#src/host/linux-host.ts';
import { silentLog } from '#src/lib/log.ts';
import { virtContract } from '../../contract/virt/virt-contract.ts';
import { makeBusyboxRootTarball } from '../images.ts';

const socketPath = process.env['TEST_ENGINE_SOCKET'] ?? '';

describe.skipIf(process.env['INTEGRATION'] !== '1' || socketPath === '')(
  'LXD driver on an engine that runs already',
  () => {
    virtContract(`lxd, on ${socketPath}`, async () => {
      const folder = await mkdtemp(join(tmpdir(), 'virt-external-'));
      await makeBusyboxRootTarball(join(folder, 'root.tar.gz'));
      return {
        driver: new LxdDriver({
          log: silentLog,
          host: new LinuxHost(),
          options: { ...DEFAULT_OPTIONS, endpoint: { kind: 'unix', socketPath }, stateFolder: join(folder, 'state') },
        }),
        rootfs: await readFile(join(folder, 'root.tar.gz')),
        limitMs: 60_000,
        async [Symbol.asyncDispose]() {
          await rm(folder, { recursive: true });
        },
      };
    });
  },
);
