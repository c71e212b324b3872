// Processors of the host that are one guest's alone: chosen with its claim, written into its NUMA topology, counted by what is there.
// A guest has one cell, of one NUMA node of the host; what Nova knows beyond that is refused (contract sections 4.4, 4.7).
import { novaException } from '#src/nova/exceptions.ts';
import { createObject, type NovaObject } from '#src/nova/objects/object.ts';
import type { HostFacts } from '#drivers/virt/driver.ts';

type Instance = NovaObject<'Instance'>;
type Topology = NovaObject<'InstanceNUMATopology'>;
type Cell = NovaObject<'InstanceNUMACell'>;
type HostCpus = Pick<HostFacts, 'cpus'>;

const DEDICATED = 'dedicated';

/** Of an instance with its topology at hand. */
export function pinsOf(instance: Instance): readonly number[] {
  const cells = instance.find('numa_topology')?.find('cells') ?? [];
  return cells.flatMap((cell) => Object.values(cell.find('cpu_pinning_raw') ?? {}));
}

function isDedicated(cell: Cell): boolean {
  return cell.find('cpu_policy') === DEDICATED;
}

/** Whether the instance, with that flavor, wants processors of its own; of one whose topology may not be at hand. */
export function wantsPins(instance: Instance, flavor: NovaObject<'Flavor'>): boolean {
  const specs = flavor.find('extra_specs') ?? {};
  const image = instance.find('system_metadata')?.['image_hw_cpu_policy'];
  const asksPlacement = Object.keys(specs).some((key) => /^resources\d*:PCPU$/.test(key));
  return specs['hw:cpu_policy'] === DEDICATED || image === DEDICATED || asksPlacement;
}

type Wish = readonly [reason: string, isWanted: (cell: Cell, topology: Topology) => boolean];

const NOT_HERE: readonly Wish[] = [
  [
    'Dedicated CPUs of several NUMA nodes are not supported on this host.',
    (_cell, topology) => topology.get('cells').length > 1,
  ],
  ['Mixed CPU policies are not supported on this host.', (cell) => cell.find('cpu_policy') === 'mixed'],
  [
    'Policies of CPU threads are not supported on this host.',
    (cell) => ![null, 'prefer'].includes(cell.find('cpu_thread_policy') ?? null),
  ],
  [
    'Containers have no emulator threads to be kept apart.',
    (_cell, topology) => (topology.find('emulator_threads_policy') ?? null) !== null,
  ],
  ['Sizes of memory pages are not supported on this host.', (cell) => (cell.find('pagesize') ?? null) !== null],
];

/** What of a topology this host cannot give; undefined: nothing. */
export function topologyComplaint(topology: Topology | null | undefined): string | undefined {
  const cell = topology?.find('cells')?.find(hasPolicy);
  if (!topology || !cell) return undefined;
  return NOT_HERE.find(([, isWanted]) => isWanted(cell, topology))?.[0];
}

function hasPolicy(cell: Cell): boolean {
  return ['dedicated', 'mixed'].includes(cell.find('cpu_policy') ?? '');
}

/** Gives the instance free processors, unsaved; nothing for one that wants none. Rejects with ComputeResourcesUnavailable. */
export function pin(instance: Instance, free: readonly number[], host: HostCpus): void {
  const topology = instance.find('numa_topology');
  const [cell] = topology?.find('cells') ?? [];
  if (!topology || !cell || !isDedicated(cell)) return;
  const complaint = topologyComplaint(topology);
  const wanted = [...(cell.find('pcpuset') ?? [])].toSorted((left, right) => left - right);
  const place = complaint === undefined ? placeOf(wanted.length, free, host) : undefined;
  if (!place) {
    const reason = complaint ?? `${wanted.length} dedicated CPUs of one NUMA node are wanted, and not free.`;
    throw novaException('ComputeResourcesUnavailable', { reason });
  }
  const pins = Object.fromEntries(wanted.map((vcpu, index) => [String(vcpu), place.cpus[index] ?? 0]));
  instance.set('numa_topology', withPins(instance, { id: place.node, cpu_pinning_raw: pins }));
}

/** Takes them away, unsaved. */
export function unpin(instance: Instance): void {
  if (pinsOf(instance).length > 0) instance.set('numa_topology', withPins(instance, { cpu_pinning_raw: null }));
}

const KEPT = [
  'id',
  'cpuset',
  'pcpuset',
  'cpuset_reserved',
  'memory',
  'pagesize',
  'cpu_topology',
  'cpu_policy',
  'cpu_thread_policy',
] as const;

/** A new one: what is in a list does not count as a change of its own. */
function withPins(instance: Instance, change: Parameters<typeof createObject<'InstanceNUMACell'>>[1]): Topology {
  const cells = (instance.get('numa_topology')?.find('cells') ?? []).map((cell) => {
    const kept = KEPT.flatMap((field) => (cell.has(field) ? [[field, cell.get(field)] as const] : []));
    return createObject('InstanceNUMACell', { ...Object.fromEntries(kept), ...change });
  });
  const fields = { instance_uuid: instance.get('uuid'), cells, emulator_threads_policy: null };
  return createObject('InstanceNUMATopology', fields);
}

/** The node with the fewest free ones that suffice: the others stay whole for larger guests. */
function placeOf(count: number, free: readonly number[], host: HostCpus) {
  const places = nodesOf(host).map((node) => ({ node, cpus: free.filter((id) => nodeOf(host, id) === node) }));
  const fitting = places.filter(({ cpus }) => cpus.length >= count);
  return fitting.toSorted((left, right) => left.cpus.length - right.cpus.length)[0];
}

export function nodesOf({ cpus }: HostCpus): readonly number[] {
  return [...new Set(cpus.map(({ node }) => node))].toSorted((left, right) => left - right);
}

function nodeOf({ cpus }: HostCpus, id: number): number | undefined {
  return cpus.find((cpu) => cpu.id === id)?.node;
}
