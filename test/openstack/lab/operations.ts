// What a user asks of a server, and what it comes to: of tests that disturb the operations.
import { OpenStackError } from 'keystone-client-ts';
import { setTimeout as sleep } from 'node:timers/promises';
import type { Server } from './cloud.ts';
import { actionsOf, activeServer, cloud, deleteServer, lab, newServer } from './suite.ts';
import { newVolume, waitForVolume } from './volumes.ts';

export interface Operation {
  readonly perform: (server: Server) => Promise<unknown>;
  /** Brings it there first. */
  readonly before?: (server: Server) => Promise<unknown>;
}

const created: string[] = [];
const images: string[] = [];
const volumeOf = new Map<string, string>();

const act = (body: object) => (server: Server) => cloud.action(server.id, body as Readonly<Record<string, unknown>>);
const attachments = (server: Server): string => `/servers/${server.id}/os-volume_attachments`;

async function attachVolume(server: Server): Promise<void> {
  const volumeId = volumeOf.get(server.id) ?? (await newVolume(`of-${server.name}`));
  volumeOf.set(server.id, volumeId);
  await cloud.post(cloud.compute, attachments(server), { volumeAttachment: { volumeId } });
}

async function portsOf(server: Server): Promise<readonly { readonly port_id: string }[]> {
  type Answer = { readonly interfaceAttachments: readonly { readonly port_id: string }[] };
  return (await cloud.get<Answer>(cloud.compute, `/servers/${server.id}/os-interface`)).interfaceAttachments;
}

const resize = act({ resize: { flavorRef: '2' } });

/** All but the one that makes the server. */
export const OPERATIONS: Readonly<Record<string, Operation>> = {
  stop: { perform: act({ 'os-stop': null }) },
  start: { before: act({ 'os-stop': null }), perform: act({ 'os-start': null }) },
  'hard reboot': { perform: act({ reboot: { type: 'HARD' } }) },
  pause: { perform: act({ pause: null }) },
  unpause: { before: act({ pause: null }), perform: act({ unpause: null }) },
  suspend: { perform: act({ suspend: null }) },
  resume: { before: act({ suspend: null }), perform: act({ resume: null }) },
  rescue: { perform: act({ rescue: {} }) },
  unrescue: { before: act({ rescue: {} }), perform: act({ unrescue: null }) },
  rebuild: { perform: async (server) => act({ rebuild: { imageRef: (await lab()).image } })(server) },
  snapshot: {
    perform: async (server) => {
      const body = { createImage: { name: `of-${server.name}` } };
      images.push(((await cloud.action(server.id, body)) as { image_id: string }).image_id);
    },
  },
  shelve: { perform: act({ shelve: null }) },
  unshelve: { before: act({ shelve: null }), perform: act({ unshelve: null }) },
  resize: { perform: resize },
  confirm: { before: resize, perform: act({ confirmResize: null }) },
  revert: { before: resize, perform: act({ revertResize: null }) },
  'attach interface': {
    perform: async (server) =>
      cloud.post(cloud.compute, `/servers/${server.id}/os-interface`, {
        interfaceAttachment: { net_id: (await lab()).network },
      }),
  },
  'detach interface': {
    perform: async (server) =>
      cloud.delete(cloud.compute, `/servers/${server.id}/os-interface/${(await portsOf(server))[0]?.port_id}`),
  },
  'attach volume': { perform: attachVolume },
  'detach volume': {
    before: async (server) => {
      await attachVolume(server);
      await waitForVolume(volumeOf.get(server.id) ?? '', 'in-use');
    },
    perform: (server) => cloud.delete(cloud.compute, `${attachments(server)}/${volumeOf.get(server.id)}`),
  },
  delete: { perform: (server) => cloud.delete(cloud.compute, `/servers/${server.id}`) },
};

/** For an event to begin; where that could not be written there is none. */
const SILENCE_MS = 10_000;

/** Until nothing is under way any more: every event of the newest action has ended, and then there is no task. */
async function settled(id: string, limitMs: number): Promise<Server | undefined> {
  let busyAt = Date.now();
  for (const deadline = Date.now() + limitMs; ; await sleep(300)) {
    const known = (await cloud.server(id)) !== undefined;
    const [action] = known ? await actionsOf(id) : [];
    // read after the events: what they ended with is saved before
    const server = await cloud.server(id);
    if (!server) return undefined;
    const isOver =
      action !== undefined && action.events.length > 0 && action.events.every(({ result }) => result !== null);
    const isIdle = server['OS-EXT-STS:task_state'] === null && !['BUILD', 'RESIZE'].includes(server.status);
    if (!isIdle || action === undefined || action.events.length > 0) busyAt = Date.now();
    const isSilent = Date.now() - busyAt > SILENCE_MS;
    if ((isOver && isIdle) || isSilent || Date.now() > deadline) return server;
  }
}

/** What the user sees: status, task, result of the action, fault; the refusal of a call that waits for the compute. */
export async function outcomeOf(id: string, asking: Promise<unknown>, limitMs: number): Promise<string> {
  const refusal = await asking.then(
    () => undefined,
    (error: unknown) => (error instanceof OpenStackError ? `HTTP ${error.status}` : String(error)),
  );
  const server = await settled(id, limitMs);
  if (!server) return ['DELETED', ...(refusal === undefined ? [] : [refusal])].join(', ');
  const [action] = await actionsOf(id);
  const failed = action?.events
    .filter(({ result }) => result !== 'Success')
    .map(({ event, result }) => `${event} ${result}`);
  const task = server['OS-EXT-STS:task_state'];
  return [
    server.status,
    ...(task === null ? [] : [task]),
    ...(failed ?? []),
    ...(server.fault ? [`fault "${server.fault.message.replaceAll(id, 'ID')}"`] : []),
    ...(refusal === undefined ? [] : [refusal]),
  ].join(', ');
}

let counter = 0;
const nextName = (): string => `disturbed-${(counter += 1)}`;

/** A server that is asked for and not waited for. */
export async function beginServer(): Promise<string> {
  const id = await newServer({ name: nextName() });
  created.push(id);
  return id;
}

/** A server that the operation can be asked of. */
export async function preparedServer(operation: Operation): Promise<Server> {
  const server = await activeServer({ name: nextName() });
  created.push(server.id);
  if (!operation.before) return server;
  await operation.before(server);
  return (await settled(server.id, 60_000)) ?? server;
}

/** All servers, images and volumes that came about here. */
export async function removeAll(): Promise<void> {
  await Promise.all(created.splice(0).map((id) => deleteServer(id)));
  for (const id of images.splice(0)) await cloud.delete(cloud.image, `/v2/images/${id}`).catch(absent);
  for (const [server, id] of volumeOf) {
    volumeOf.delete(server);
    await waitForVolume(id, 'available');
    await cloud.volume.request({ method: 'DELETE', path: `/volumes/${id}` });
  }
}

function absent(error: unknown): void {
  if (!(error instanceof OpenStackError) || error.status !== 404) throw error;
}
