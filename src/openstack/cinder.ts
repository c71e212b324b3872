// Cinder v3, as a compute uses it (nova-compute-contract section 8.5): volumes, and the attachments API.
import { OpenStackError, type ServiceClient, type ServiceRequest } from 'keystone-client-ts';
import { asRequestedBy, type ClientOptions, createServiceClient, isAbsent, withSignal } from './service.ts';
import type { Cinder, CinderAttachment, CinderVolume, Credentials, NewVolume } from './types.ts';

type Dict = Readonly<Record<string, unknown>>;
type Call = Pick<ServiceRequest, 'method' | 'path' | 'body' | 'headers'>;

/** The first with completion of attachments; every Cinder since Rocky has it. */
const VERSION = { 'OpenStack-API-Version': 'volume 3.44' };
const REIMAGE_VERSION = { 'OpenStack-API-Version': 'volume 3.68' };
const ATTEMPTS = 5;
/** A back end that hiccups. */
const REPEATED: ReadonlySet<number | undefined> = new Set([500, 504]);

export function createCinder(options: ClientOptions): Cinder {
  return new CinderClient(createServiceClient({ serviceType: 'volumev3' }, options));
}

class CinderClient implements Cinder {
  readonly #client: ServiceClient;

  constructor(client: ServiceClient) {
    this.#client = client;
  }

  async getVolume(credentials: Credentials, id: string, signal?: AbortSignal): Promise<CinderVolume> {
    const { volume } = await this.#ask<{ volume: Dict }>(credentials, get(volumePath(id)), signal);
    return toVolume(volume);
  }

  async createVolume(credentials: Credentials, volume: NewVolume, signal?: AbortSignal): Promise<CinderVolume> {
    const body = {
      volume: {
        size: volume.sizeGib,
        name: volume.name,
        description: volume.description,
        snapshot_id: volume.snapshotId,
        imageRef: volume.imageId,
        volume_type: volume.volumeType,
        availability_zone: volume.availabilityZone,
      },
    };
    const answer = await this.#ask<{ volume: Dict }>(credentials, post('/volumes', body), signal);
    return toVolume(answer.volume);
  }

  async deleteVolume(credentials: Credentials, id: string, signal?: AbortSignal): Promise<void> {
    await unlessAbsent(this.#ask(credentials, { method: 'DELETE', path: volumePath(id) }, signal));
  }

  async createAttachment(
    credentials: Credentials,
    { volumeId, instanceUuid }: { readonly volumeId: string; readonly instanceUuid: string },
    signal?: AbortSignal,
  ): Promise<string> {
    const body = { attachment: { volume_uuid: volumeId, instance_uuid: instanceUuid } };
    const answer = await this.#ask<{ attachment: Dict }>(credentials, post('/attachments', body), signal);
    return String(answer.attachment['id']);
  }

  async getAttachment(credentials: Credentials, id: string, signal?: AbortSignal): Promise<CinderAttachment> {
    const { attachment } = await this.#ask<{ attachment: Dict }>(credentials, get(attachmentPath(id)), signal);
    return toAttachment(attachment);
  }

  async updateAttachment(
    credentials: Credentials,
    id: string,
    connector: Dict,
    signal?: AbortSignal,
  ): Promise<CinderAttachment> {
    const call = { method: 'PUT', path: attachmentPath(id), body: { attachment: { connector } } } as const;
    const { attachment } = await repeated(() => this.#ask<{ attachment: Dict }>(credentials, call, signal));
    return toAttachment(attachment);
  }

  async completeAttachment(credentials: Credentials, id: string, signal?: AbortSignal): Promise<void> {
    await this.#ask(credentials, post(`${attachmentPath(id)}/action`, { 'os-complete': {} }), signal);
  }

  async deleteAttachment(credentials: Credentials, id: string, signal?: AbortSignal): Promise<void> {
    const call = { method: 'DELETE', path: attachmentPath(id) } as const;
    await unlessAbsent(repeated(() => this.#ask(credentials, call, signal)));
  }

  async rollDetaching(credentials: Credentials, volumeId: string, signal?: AbortSignal): Promise<void> {
    await this.#ask(credentials, post(`${volumePath(volumeId)}/action`, { 'os-roll_detaching': {} }), signal);
  }

  async completeMigration(
    credentials: Credentials,
    { volumeId, newVolumeId, isFailed }: Parameters<Cinder['completeMigration']>[1],
    signal?: AbortSignal,
  ): Promise<string> {
    const body = { 'os-migrate_volume_completion': { new_volume: newVolumeId, error: isFailed } };
    const call = post(`${volumePath(volumeId)}/action`, body);
    const answer = await this.#ask<Dict>(credentials, call, signal);
    return String(answer['save_volume_id']);
  }

  async reimageVolume(
    credentials: Credentials,
    { volumeId, imageId }: { readonly volumeId: string; readonly imageId: string },
    signal?: AbortSignal,
  ): Promise<void> {
    const body = { 'os-reimage': { image_id: imageId, reimage_reserved: true } };
    await this.#ask(credentials, { ...post(`${volumePath(volumeId)}/action`, body), headers: REIMAGE_VERSION }, signal);
  }

  async #ask<T>(credentials: Credentials, call: Call, signal: AbortSignal | undefined): Promise<T> {
    const request = { headers: VERSION, ...call, ...asRequestedBy(credentials), ...withSignal(signal) };
    return (await this.#client.request(request)).data as T;
  }
}

const get = (path: string): Call => ({ method: 'GET', path });
const post = (path: string, body: unknown): Call => ({ method: 'POST', path, body });
const volumePath = (id: string): string => `/volumes/${encodeURIComponent(id)}`;
const attachmentPath = (id: string): string => `/attachments/${encodeURIComponent(id)}`;

async function repeated<T>(work: () => Promise<T>): Promise<T> {
  for (let attempt = 1; ; attempt += 1) {
    try {
      return await work();
    } catch (error) {
      if (!(error instanceof OpenStackError && REPEATED.has(error.status)) || attempt === ATTEMPTS) throw error;
    }
  }
}

async function unlessAbsent(work: Promise<unknown>): Promise<void> {
  try {
    await work;
  } catch (error) {
    if (!isAbsent(error)) throw error;
  }
}

function toVolume(volume: Dict): CinderVolume {
  return {
    id: String(volume['id']),
    status: String(volume['status']),
    sizeGib: Number(volume['size']),
    multiattach: volume['multiattach'] === true,
    encrypted: volume['encrypted'] === true,
    availabilityZone: textOf(volume['availability_zone']),
    volumeType: textOf(volume['volume_type']),
    migrationStatus: textOf(volume['migration_status']),
    ...imageMetadataOf(volume['volume_image_metadata']),
  };
}

function imageMetadataOf(value: unknown): Pick<CinderVolume, 'imageMetadata'> {
  if (typeof value !== 'object' || value === null) return {};
  const entries = Object.entries(value).filter((entry): entry is [string, string] => typeof entry[1] === 'string');
  return entries.length === 0 ? {} : { imageMetadata: Object.fromEntries(entries) };
}

function toAttachment({ id, connection_info: info }: Dict): CinderAttachment {
  return { id: String(id), connectionInfo: typeof info === 'object' && info !== null ? (info as Dict) : {} };
}

function textOf(value: unknown): string | null {
  return typeof value === 'string' ? value : null;
}
