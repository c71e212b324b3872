// A guest of the tests: from the busybox tarball that makeBusyboxRootTarball() made.
import { randomUUID } from 'node:crypto';
import { createReadStream } from 'node:fs';
import type { SpawnFlavor, SpawnSpec } from '#drivers/virt/driver.ts';

const FLAVOR: SpawnFlavor = {
  vcpus: 1,
  memoryMib: 128,
  rootGib: 1,
  cpuIds: null,
  ephemeralsGib: [],
  swapMib: 0,
  extraSpecs: {},
};

export function busyboxSpec(tarball: string, hostname: string, flavor: Partial<SpawnFlavor> = {}): SpawnSpec {
  const uuid = randomUUID();
  return {
    uuid,
    name: `instance-${uuid.slice(0, 8)}`,
    displayName: hostname,
    hostname,
    projectId: 'project',
    userId: 'user',
    flavor: { ...FLAVOR, ...flavor },
    image: {
      id: 'image',
      cacheKey: 'image',
      name: 'image',
      diskFormat: 'raw',
      containerFormat: 'bare',
      sizeBytes: null,
      properties: {},
      open: async () => createReadStream(tarball),
    },
  };
}
