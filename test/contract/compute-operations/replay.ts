// Plays a recorded operation against our operations: the same messages in, ours and the stock compute's messages out.
import { existsSync, readFileSync } from 'node:fs';
import { gunzipSync } from 'node:zlib';
import { parseNetworkInfo } from '#src/nova/network-model.ts';
import { ComputeHarness } from '#test/fakes/compute-harness.ts';
import type { Sent } from '#test/fakes/fake-control-plane.ts';
import { contextOf } from '../nova/recordings.ts';

type Json = Readonly<Record<string, any>>;
const FOLDER = new URL('../../fixtures/wire/zed/', import.meta.url);

function linesOf(file: string): readonly any[] {
  const text = gunzipSync(readFileSync(new URL(`${file}.jsonl.gz`, FOLDER))).toString();
  return text
    .split('\n')
    .filter((line) => line !== '')
    .map((line) => JSON.parse(line));
}

/** One call or cast of a compute, reduced to what the contract is about. */
export interface Step {
  readonly what: string;
  readonly expected?: unknown;
  readonly changes: Json;
  readonly args: readonly unknown[];
  readonly kwargs: Json;
}

export interface Received {
  readonly method: string;
  readonly args: Json;
  readonly context: Json;
  readonly host: string;
}

export interface Recording {
  /** What the computes were asked, in order. */
  readonly received: readonly Received[];
  /** What the stock compute sent for that request. */
  stepsOf(received: Received): readonly Step[];
  /** `PUT neutron`, `DELETE placement` …: the requests with that id. */
  requestsOf(received: Received): readonly string[];
}

export function recordingOf(name: string): Recording {
  const published = linesOf(name).filter(({ event, message }) => event === 'publish' && 'method' in message);
  // An operation without requests has no recording of them.
  const http = existsSync(new URL(`http/${name}.jsonl.gz`, FOLDER)) ? linesOf(`http/${name}`) : [];
  return {
    received: published
      .filter(({ routing_keys: [key] }) => key.startsWith('compute.'))
      .map(({ message, routing_keys: [key] }) => ({
        method: message.method,
        args: message.args,
        context: contextOf(message),
        host: key.replace(/^compute\./, ''),
      })),
    stepsOf: ({ context, host }) =>
      published
        .filter(({ from }) => from === `compute-${host}`)
        .filter(({ message }) => message._context_request_id === context['request_id'])
        .map(({ message }) => stepOf(message.method, message.args)),
    requestsOf: ({ context, host }) =>
      http
        .filter((request) => request.from === `compute-${host}` && request.request_id === context['request_id'])
        .map(({ method, to }) => `${method} ${to}`),
  };
}

function stepOf(method: string, args: Json): Step {
  if (method === 'object_action') {
    const { objinst, objmethod, kwargs } = args as any;
    const data = objinst['nova_object.data'];
    const changes = Object.fromEntries(
      (objinst['nova_object.changes'] ?? []).map((field: string) => [field, data[field]]),
    );
    const what = `${objinst['nova_object.name']}.${objmethod}`;
    return { what, expected: kwargs.expected_task_state, changes, args: args['args'], kwargs };
  }
  if (method === 'object_class_action_versions') {
    const what = `${args['objname']}.${args['objmethod']}`;
    return { what, changes: {}, args: args['args'], kwargs: args['kwargs'] };
  }
  return { what: method, changes: {}, args: [], kwargs: args };
}

export function stepsOf(sent: readonly Sent[]): readonly Step[] {
  return sent.map(({ request }) => stepOf(request.method, request.args as Json));
}

/** Our compute of that name, with what the recorded one found: networks, ports, the instance. */
export function harnessFor({ args, context, host }: Received): ComputeHarness {
  const harness = new ComputeHarness({ host });
  const data = args['instance']['nova_object.data'];
  const project = String(context['project_id']);
  harness.plane.add(args['instance']);
  harness.placement.consumers.add(data.uuid);
  addNetworks(harness, args['requested_networks'], project);
  for (const vif of parseNetworkInfo(data.info_cache?.['nova_object.data'].network_info ?? null)) {
    const network = harness.neutron.addNetwork({ id: vif.network?.id ?? '', tenant_id: project });
    harness.neutron.addPort(network, {
      id: vif.id,
      mac_address: vif.address,
      tenant_id: data.project_id,
      device_id: data.uuid,
      status: 'ACTIVE',
      'binding:vif_type': vif.type,
      'binding:host_id': host,
    });
  }
  const group = args['request_spec']?.['nova_object.data'].instance_group?.['nova_object.data'];
  if (group) harness.plane.groups.set(group.uuid, group);
  return harness;
}

function addNetworks(harness: ComputeHarness, requested: Json | null | undefined, project: string): void {
  for (const request of requested?.['nova_object.data'].objects ?? []) {
    const { network_id: networkId, port_id: portId } = request['nova_object.data'];
    if (networkId === 'none') continue;
    const network = harness.neutron.addNetwork({ ...(networkId && { id: networkId }), tenant_id: project });
    if (portId) harness.neutron.addPort(network, { id: portId, tenant_id: project });
  }
}

/** Reads and writes of the resource tracker, which is tested elsewhere, and reads of what is in the message anyway. */
const NOT_OURS =
  /^(ComputeNode|Service|ComputeNodeList|ResourceList|BlockDeviceMappingList|InstanceNUMATopology|InstancePCIRequests|PciDeviceList|Migration|MigrationContext|TrustedCerts)\.|^Instance\.get_by_uuid$/;

export function compared(steps: readonly Step[]): readonly Step[] {
  return steps.filter(({ what }) => !NOT_OURS.test(what));
}

export function counted(names: readonly string[]): ReadonlyMap<string, number> {
  const counts = new Map<string, number>();
  for (const name of names) counts.set(name, (counts.get(name) ?? 0) + 1);
  return counts;
}

/** The names that `ours` has more often than `theirs`. */
export function surplus(ours: readonly string[], theirs: readonly string[]): readonly string[] {
  const limit = counted(theirs);
  return [...counted(ours)].filter(([name, count]) => count > (limit.get(name) ?? 0)).map(([name]) => name);
}
