// Memory in all and by node.
import type { SysTree } from './sys-tree.ts';

const NODES = '/sys/devices/system/node';
const BLOCKS = '/sys/devices/system/memory';

export function readMemory(tree: SysTree): object {
  const info = tree.text('/proc/meminfo');
  const pageSize = kilobytes(info, 'Hugepagesize');
  const available = kilobytes(info, 'MemAvailable');
  const visible = kilobytes(info, 'MemTotal');
  const nodes = tree.list(NODES).filter((name) => /^node\d+$/.test(name));
  const blocks = blocksOf(tree);
  return {
    nodes: nodes.map((name) => readNode(tree, { name, pageSize, blocks })),
    hugepages_total: count(info, 'HugePages_Total') * pageSize,
    hugepages_used: (count(info, 'HugePages_Total') - count(info, 'HugePages_Free')) * pageSize,
    hugepages_size: pageSize,
    used: visible - available,
    total: blocks ? blocks.online.size * blocks.sizeBytes : visible,
  };
}

interface NodeParts {
  readonly name: string;
  readonly pageSize: number;
  readonly blocks: Blocks | undefined;
}

function readNode(tree: SysTree, { name, pageSize, blocks }: NodeParts): object {
  const info = tree.text(`${NODES}/${name}/meminfo`);
  const pages = count(info, 'HugePages_Total');
  const used = kilobytes(info, 'MemUsed') - kilobytes(info, 'FilePages') - kilobytes(info, 'SReclaimable');
  const own = blocks && tree.list(`${NODES}/${name}`).filter((entry) => blocks.online.has(entry));
  return {
    numa_node: Number(name.slice('node'.length)),
    hugepages_used: (pages - count(info, 'HugePages_Free')) * pageSize,
    hugepages_total: pages * pageSize,
    // What can be had back at once is not used.
    used: Math.max(0, used),
    total: blocks && own ? own.length * blocks.sizeBytes : kilobytes(info, 'MemTotal'),
  };
}

/** What is installed, with what the kernel keeps for itself. */
interface Blocks {
  readonly sizeBytes: number;
  /** memory0, memory1 … */
  readonly online: ReadonlySet<string>;
}

/** undefined: the kernel does not tell. */
function blocksOf(tree: SysTree): Blocks | undefined {
  const sizeBytes = Number.parseInt(tree.text(`${BLOCKS}/block_size_bytes`), 16);
  if (Number.isNaN(sizeBytes)) return undefined;
  const names = tree.list(BLOCKS).filter((name) => /^memory\d+$/.test(name));
  const online = names.filter((name) => tree.text(`${BLOCKS}/${name}/online`) !== '0');
  return online.length === 0 ? undefined : { sizeBytes, online: new Set(online) };
}

/** Bytes; 0 when it is not there. Of /proc/meminfo, or of a node's. */
function kilobytes(info: string, field: string): number {
  return count(info, field) * 1024;
}

function count(info: string, field: string): number {
  return Number(new RegExp(`^(?:Node \\d+ )?${field}:\\s+(\\d+)`, 'm').exec(info)?.[1] ?? 0);
}
