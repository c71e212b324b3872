// Sockets, cores and threads with their caches and frequencies.
import { filled, type SysTree } from './sys-tree.ts';

const CPUS = '/sys/devices/system/cpu';
const KHZ_OF_MHZ = 1000;

interface Thread {
  readonly id: number;
  readonly core: number;
  readonly die: number;
  readonly socket: number;
  readonly numaNode: number;
  /** MHz. */
  readonly frequency: number;
}

export function readCpu(tree: SysTree, architecture: string): object {
  const info = cpuInfo(tree);
  const threads = tree
    .list(CPUS)
    .filter((name) => /^cpu\d+$/.test(name))
    .map((name) => readThread(tree, name, info));
  const isolated = cpuSet(tree.text(`${CPUS}/isolated`));
  const online = onlineOf(tree, threads);
  const sockets = [...Map.groupBy(threads, ({ socket }) => socket)].map(([socket, members]) => ({
    ...filled({ name: info.field('model name'), vendor: info.field('vendor_id') }),
    socket,
    ...caches(tree, members),
    cores: coresOf(members).map((siblings) => ({
      core: siblings[0]?.core ?? 0,
      die: siblings[0]?.die ?? 0,
      threads: siblings.map(({ id, numaNode }, thread) => {
        return { id, numa_node: numaNode, thread, online: online.has(id), isolated: isolated.has(id) };
      }),
      ...filled({ frequency: average(siblings) }),
    })),
    ...filled({
      frequency: average(members),
      frequency_minimum: megahertz(tree, members[0], 'cpuinfo_min_freq'),
      frequency_turbo: megahertz(tree, members[0], 'cpuinfo_max_freq'),
    }),
  }));
  return { architecture, sockets, total: threads.filter(({ id }) => online.has(id)).length };
}

/** Dies number their cores by themselves. */
function coresOf(threads: readonly Thread[]): readonly (readonly Thread[])[] {
  return [...Map.groupBy(threads, ({ core, die }) => `${die}/${core}`).values()];
}

interface CpuInfo {
  /** Of the first processor that has it. */
  field(name: string): string;
  /** MHz as the processor says it. */
  readonly frequencies: ReadonlyMap<number, number>;
}

function cpuInfo(tree: SysTree): CpuInfo {
  const text = tree.text('/proc/cpuinfo');
  const find = (block: string, name: string) =>
    new RegExp(`^${name}\\s*:\\s*(.*)$`, 'm').exec(block)?.[1]?.trim() ?? '';
  const frequencies = text.split('\n\n').map((block) => {
    return [Number(find(block, 'processor')), Math.floor(Number(find(block, 'cpu MHz')))] as const;
  });
  return { field: (name) => find(text, name), frequencies: new Map(frequencies) };
}

function readThread(tree: SysTree, name: string, { frequencies }: CpuInfo): Thread {
  const id = Number(name.slice('cpu'.length));
  const place = (file: string) => Math.max(0, tree.number(`${CPUS}/${name}/topology/${file}`) ?? 0);
  const node = tree.list(`${CPUS}/${name}`).find((entry) => /^node\d+$/.test(entry));
  const scaled = tree.number(`${CPUS}/${name}/cpufreq/scaling_cur_freq`);
  return {
    id,
    core: place('core_id'),
    die: place('die_id'),
    socket: place('physical_package_id'),
    numaNode: node === undefined ? 0 : Number(node.slice('node'.length)),
    frequency: scaled === undefined ? (frequencies.get(id) ?? 0) : Math.floor(scaled / KHZ_OF_MHZ),
  };
}

/** A host that cannot switch processors off does not say which are on. */
function onlineOf(tree: SysTree, threads: readonly Thread[]): ReadonlySet<number> {
  const text = tree.text(`${CPUS}/online`);
  return text === '' ? new Set(threads.map(({ id }) => id)) : cpuSet(text);
}

/** MHz; those that are off have none. */
function average(threads: readonly Thread[]): number {
  const known = threads.map(({ frequency }) => frequency).filter((frequency) => frequency > 0);
  return known.length === 0 ? 0 : Math.floor(known.reduce((sum, one) => sum + one, 0) / known.length);
}

function megahertz(tree: SysTree, thread: Thread | undefined, file: string): number {
  return Math.floor((tree.number(`${CPUS}/cpu${thread?.id ?? 0}/cpufreq/${file}`) ?? 0) / KHZ_OF_MHZ);
}

/** Those of the first processor of a socket, in the order of the kernel. */
function caches(tree: SysTree, threads: readonly Thread[]): object {
  const folder = `${CPUS}/cpu${threads[0]?.id ?? 0}/cache`;
  const cache = tree
    .list(folder)
    .filter((name) => /^index\d+$/.test(name))
    .map((name) => ({
      level: tree.number(`${folder}/${name}/level`) ?? 0,
      type: tree.text(`${folder}/${name}/type`),
      size: bytesOf(tree.text(`${folder}/${name}/size`)),
    }));
  return cache.length === 0 ? {} : { cache };
}

/** "512K" */
function bytesOf(text: string): number {
  const unit = { K: 1024, M: 1024 ** 2 }[text.slice(-1)] ?? 1;
  return (Number.parseInt(text, 10) || 0) * unit;
}

/** "0-3,7" as a set. */
export function cpuSet(list: string): ReadonlySet<number> {
  const ids = new Set<number>();
  for (const range of list.split(',').filter((part) => part !== '')) {
    const [first = 0, last = first] = range.split('-').map(Number);
    for (let id = first; id <= last; id++) ids.add(id);
  }
  return ids;
}
