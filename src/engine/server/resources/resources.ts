// The hardware of this host: GET /1.0/resources. Read anew each time, without asking another program.
import { setImmediate as others } from 'node:timers/promises';
import { Ethtool } from '#src/host/ethtool.ts';
import { readCpu } from './cpu.ts';
import { readGpu } from './gpu.ts';
import { HardwareNames } from './hardware-names.ts';
import { readMemory } from './memory.ts';
import { readNetwork } from './network.ts';
import { readPci } from './pci.ts';
import { readStorage } from './storage.ts';
import { readSystem } from './system.ts';
import { SysTree } from './sys-tree.ts';
import { readUsb } from './usb.ts';

/** The kernel answers at once, but there may be much to ask: between the parts others have their turn. */
export async function readResources(architecture: string, tree: SysTree = new SysTree()): Promise<object> {
  const names = new HardwareNames(tree);
  using ethtool = new Ethtool();
  const parts = {
    cpu: () => readCpu(tree, architecture),
    memory: () => readMemory(tree),
    gpu: () => readGpu(tree, names),
    network: () => readNetwork(tree, names, ethtool),
    storage: () => readStorage(tree),
    usb: () => readUsb(tree, names),
    pci: () => readPci(tree, names),
    system: () => readSystem(tree),
  };
  const found: Record<string, object> = {};
  for (const [name, read] of Object.entries(parts)) {
    found[name] = read();
    await others();
  }
  return found;
}
