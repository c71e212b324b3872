// Both storage contracts on one machine, which is made before and unmade after them.
import { afterAll, beforeAll, describe } from 'vitest';
import { storageContract } from '#test/contract/storage-contract.ts';
import { customOwnersContract } from './custom-owners-contract.ts';
import type { Machine } from './real-pools.ts';
import { storageSnapshotsContract } from './snapshots-contract.ts';
import { storageFilesContract } from './storage-files-contract.ts';
import { storageStreamsContract } from './streams-contract.ts';

export function storageSuite(
  name: string,
  newMachine: () => Promise<Machine>,
  { hasStreams = false }: { readonly hasStreams?: boolean } = {},
): void {
  describe(name, () => {
    let machine: Machine;
    beforeAll(async () => {
      machine = await newMachine();
    });
    afterAll(async () => {
      await machine[Symbol.asyncDispose]();
    });

    storageContract(() => machine.newPool());
    storageFilesContract(() => machine.newPool());
    storageSnapshotsContract(() => machine.newPool());
    customOwnersContract(() => machine.newPool());
    if (hasStreams) storageStreamsContract(() => machine.newPool());
  });
}
