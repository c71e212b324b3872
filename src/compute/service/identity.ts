// Which ComputeNode this machine is: the compute_id file, and the checks that keep one host from posing as another (section 4.3).
import { randomUUID } from 'node:crypto';
import { mkdir, open, readFile } from 'node:fs/promises';
import { join } from 'node:path';
import { AppError } from '#src/lib/errors.ts';
import type { Log } from '#src/lib/log.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { expectList } from '#src/nova/objects/wire.ts';
import { isNova } from '#src/nova/exceptions.ts';
import type { Asking } from '../records.ts';

const FILE = 'compute_id';
const UUID = /^[0-9a-f]{8}-([0-9a-f]{4}-){3}[0-9a-f]{12}$/i;
/** First service version whose computes keep the file. */
const STABLE_IDENTITY_VERSION = 65;

export interface IdentityFolders {
  readonly statePath: string;
  readonly configFolders: readonly string[];
}

export interface IdentityQuestion {
  readonly asking: Asking;
  readonly folders: IdentityFolders;
  readonly host: string;
  readonly nodeName: string;
  /** Absent: a host that Nova does not know yet. */
  readonly service: NovaObject<'Service'> | undefined;
  /** Whether the engine has instances with Nova's marks. */
  readonly hasGuests: boolean;
  readonly log: Log;
}

/** The uuid of the own ComputeNode and resource provider. AppError 'conflict' when this machine is not who it says. */
export async function ownNodeUuid(question: IdentityQuestion): Promise<string> {
  const { folders, log } = question;
  const stored = await readNodeUuid(folders);
  const uuid = stored ?? (await adoptedUuid(question)) ?? randomUUID();
  await checkNode(question, uuid);
  if (stored === undefined) {
    await writeNodeUuid(folders, uuid);
    log.info('node identity stored', { file: join(folders.statePath, FILE), uuid });
  }
  return uuid;
}

/** Undefined when no folder has the file; all that have it must agree. */
export async function readNodeUuid({ statePath, configFolders }: IdentityFolders): Promise<string | undefined> {
  const paths = [...new Set([...configFolders, statePath])].map((folder) => join(folder, FILE));
  const found = (await Promise.all(paths.map(readUuid))).flatMap((uuid, index) =>
    uuid === undefined ? [] : [{ uuid, path: paths[index] }],
  );
  const [first, ...others] = found;
  const other = others.find(({ uuid }) => uuid !== first?.uuid);
  if (first && other) throw new AppError('conflict', `${first.path} and ${other.path} differ; remove the wrong one`);
  return first?.uuid;
}

async function readUuid(path: string): Promise<string | undefined> {
  let content: string;
  try {
    content = (await readFile(path, 'utf8')).slice(0, 40).trim();
  } catch (error) {
    if (error instanceof Error && 'code' in error && error.code === 'ENOENT') return undefined;
    throw new AppError('unavailable', `${path} cannot be read`, { cause: error });
  }
  if (!UUID.test(content)) throw new AppError('invalid', `${path} does not hold a uuid`);
  return content.toLowerCase();
}

/** Never over another process's file. */
async function writeNodeUuid({ statePath }: IdentityFolders, uuid: string): Promise<void> {
  const path = join(statePath, FILE);
  try {
    await mkdir(statePath, { recursive: true });
    await using file = await open(path, 'wx', 0o644);
    await file.writeFile(`${uuid}\n`);
    await file.sync();
  } catch (error) {
    throw new AppError('unavailable', `${path} cannot be written`, { cause: error });
  }
}

/** Without a file: what Nova has of this host from the time before the file, if that is unambiguous. */
async function adoptedUuid(question: IdentityQuestion): Promise<string | undefined> {
  const { service, host, hasGuests, folders } = question;
  if (!service) {
    if (!hasGuests) return undefined;
    throw new AppError(
      'conflict',
      `Nova does not know host ${host}, but its engine has instances of Nova: was it renamed?`,
    );
  }
  if (service.get('version') >= STABLE_IDENTITY_VERSION) {
    const where = [...folders.configFolders, folders.statePath].join(', ');
    throw new AppError('conflict', `Nova knows host ${host}, but its ${FILE} file is lost (looked in ${where})`);
  }
  const nodes = await nodesOfHost(question);
  if (nodes.length === 1) return nodes[0]?.get('uuid');
  // the first start ended between service record and compute node
  if (nodes.length === 0 && !hasGuests) return undefined;
  throw new AppError(
    'conflict',
    `host ${host} has ${nodes.length} compute nodes in Nova; write the uuid of the right one to ${FILE}`,
  );
}

async function nodesOfHost({ asking, host }: IdentityQuestion): Promise<readonly NovaObject<'ComputeNode'>[]> {
  const call = { object: 'ComputeNodeList', method: 'get_all_by_host', args: [host] } as const;
  try {
    return expectList(await asking.conductor.classMethod(asking.context, call), 'ComputeNodeList');
  } catch (error) {
    if (isNova(error, 'ComputeHostNotFound')) return [];
    throw error;
  }
}

/** A node of that uuid must be this host's, under this name. */
async function checkNode({ asking, host, nodeName }: IdentityQuestion, uuid: string): Promise<void> {
  const call = { object: 'ComputeNodeList', method: 'get_all_by_uuids', args: [[uuid]] } as const;
  const nodes = expectList(await asking.conductor.classMethod(asking.context, call), 'ComputeNodeList');
  for (const node of nodes) {
    if (node.get('hypervisor_hostname') === nodeName && node.get('host') === host) continue;
    const known = `${node.get('hypervisor_hostname')} of host ${node.get('host')}`;
    throw new AppError(
      'conflict',
      `Nova knows node ${uuid} as ${known}, not as ${nodeName} of host ${host}: was it renamed?`,
    );
  }
}
