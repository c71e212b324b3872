// What the end-to-end tests share: the running lab, and servers that are deleted at the end of a test.
import { readFileSync } from 'node:fs';
import { join } from 'node:path';
import { EngineClient } from '#src/client/client.ts';
import { Cloud, type Server } from './cloud.ts';
import { type Reference, references, waitForStatus } from './first-server.ts';
import { Processes } from './processes.ts';
import { defaultPaths } from './settings.ts';

export const paths = defaultPaths();
export const processes = new Processes(paths);
export const cloud = new Cloud();

/** The engine of the first node. */
export const engine = new EngineClient({
  endpoint: { kind: 'unix', socketPath: join(paths.engineFolder, 'unix.socket') },
});

let known: Promise<Reference> | undefined;

export async function lab(): Promise<Reference> {
  known ??= references(cloud);
  return await known;
}

export interface NewServer {
  readonly name: string;
  readonly network?: 'port' | 'none';
  readonly image?: string;
  readonly flavor?: string;
  readonly configDrive?: boolean;
  readonly count?: number;
  readonly host?: string;
  readonly metadata?: Readonly<Record<string, string>>;
}

/** POST /servers with the lab's flavor, image and network; does not wait. */
export async function newServer({
  name,
  network = 'port',
  image,
  flavor,
  configDrive,
  count,
  host,
  metadata,
}: NewServer): Promise<string> {
  const refs = await lab();
  return await cloud.createServer({
    name,
    imageRef: image ?? refs.image,
    flavorRef: flavor ?? refs.flavor,
    networks: network === 'none' ? 'none' : [{ uuid: refs.network }],
    ...(count !== undefined && { min_count: count, max_count: count, return_reservation_id: false }),
    ...(configDrive !== undefined && { config_drive: configDrive }),
    ...(host !== undefined && { host }),
    ...(metadata !== undefined && { metadata }),
  });
}

const LOG_LINES = 8;

/** What the compute said of a server last. */
function lastWords(id: string): string {
  const lines = readFileSync(processes.logFile('nova-compute-lxd'), 'utf8').split('\n');
  return lines
    .filter((line) => line.includes(id))
    .slice(-LOG_LINES)
    .join('\n');
}

/** One that does not become ACTIVE is an error that tells what the compute did with it. */
export async function activeServer(options: NewServer): Promise<Server> {
  const id = await newServer(options);
  const server = await waitForStatus(cloud, id, 'ACTIVE').catch((error: unknown) => {
    throw new Error(`${options.name}: ${String(error)}\n${lastWords(id)}`, { cause: error });
  });
  if (!server) throw new Error(`server ${options.name} disappeared`);
  return server;
}

/** DELETE and wait until Nova does not know it any more. Absent is fine. */
export async function deleteServer(id: string): Promise<void> {
  if ((await cloud.server(id)) === undefined) return;
  await cloud.delete(cloud.compute, `/servers/${id}`);
  await waitForStatus(cloud, id, 'DELETED');
}

export interface ActionEvent {
  readonly event: string;
  readonly result: string | null;
  readonly host: string;
  readonly traceback?: string | null;
  readonly details?: string | null;
}

export interface Action {
  readonly action: string;
  readonly message: string | null;
  readonly events: readonly ActionEvent[];
}

/** The instance actions of a server, newest first, each with its events. */
export async function actionsOf(id: string): Promise<readonly Action[]> {
  const { instanceActions } = await cloud.get<{ instanceActions: readonly { request_id: string }[] }>(
    cloud.compute,
    `/servers/${id}/os-instance-actions`,
  );
  return await Promise.all(
    instanceActions.map(async ({ request_id: request }) => {
      const path = `/servers/${id}/os-instance-actions/${request}`;
      return (await cloud.get<{ instanceAction: Action }>(cloud.compute, path)).instanceAction;
    }),
  );
}
