// Cinder in memory: volumes, their states, and attachments. Its back end is a file server.
import { randomUUID } from 'node:crypto';
import { OpenStackError } from 'keystone-client-ts';
import type { Cinder, CinderAttachment, CinderVolume, Credentials, NewVolume } from '#src/openstack/types.ts';

type Dict = Readonly<Record<string, unknown>>;

interface Attachment {
  readonly id: string;
  readonly volumeId: string;
  readonly instanceUuid: string;
  connector: Dict | null;
  isComplete: boolean;
}

export class FakeCinder implements Cinder {
  readonly requests: string[] = [];
  readonly volumes = new Map<string, CinderVolume>();
  readonly attachments = new Map<string, Attachment>();
  /** Tests let Nova know of its end. */
  onReimage: (volumeId: string) => void = () => undefined;
  /** What an attachment tells beside the back end's own. */
  extraConnection: Dict = {};
  readonly #failures: { readonly match: RegExp; readonly error: Error }[] = [];

  /** The next such request is answered with the error. */
  failNext(match: RegExp, error: Error = new OpenStackError('volumev3: no', { status: 409 })): void {
    this.#failures.push({ match, error });
  }

  addVolume(fields: Partial<CinderVolume> = {}): CinderVolume {
    const volume = {
      id: randomUUID(),
      status: 'available',
      sizeGib: 1,
      multiattach: false,
      encrypted: false,
      availabilityZone: 'nova',
      volumeType: null,
      ...fields,
    };
    this.volumes.set(volume.id, volume);
    return volume;
  }

  /** As the API does before it asks the compute. */
  reserve(volumeId: string, instanceUuid: string): string {
    const id = randomUUID();
    this.attachments.set(id, { id, volumeId, instanceUuid, connector: null, isComplete: false });
    return id;
  }

  /** As users see it. */
  statusOf(volumeId: string): string {
    const own = [...this.attachments.values()].filter((one) => one.volumeId === volumeId);
    if (own.some(({ isComplete }) => isComplete)) return 'in-use';
    if (own.some(({ connector }) => connector !== null)) return 'attaching';
    return own.length > 0 ? 'reserved' : 'available';
  }

  async getVolume(_credentials: Credentials, id: string): Promise<CinderVolume> {
    this.#note(`GET volume ${id}`);
    return this.#volume(id);
  }

  async createVolume(_credentials: Credentials, { sizeGib, availabilityZone }: NewVolume): Promise<CinderVolume> {
    this.#note('POST volume');
    return this.addVolume({ sizeGib, availabilityZone: availabilityZone ?? 'nova' });
  }

  async deleteVolume(_credentials: Credentials, id: string): Promise<void> {
    this.#note(`DELETE volume ${id}`);
    this.volumes.delete(id);
  }

  async createAttachment(
    _credentials: Credentials,
    { volumeId, instanceUuid }: { readonly volumeId: string; readonly instanceUuid: string },
  ): Promise<string> {
    this.#note(`POST attachment ${volumeId}`);
    return this.reserve(volumeId, instanceUuid);
  }

  async getAttachment(_credentials: Credentials, id: string): Promise<CinderAttachment> {
    this.#note(`GET attachment ${id}`);
    return this.#told(this.#attachment(id));
  }

  async updateAttachment(_credentials: Credentials, id: string, connector: Dict): Promise<CinderAttachment> {
    this.#note(`PUT attachment ${id}`);
    const attachment = this.#attachment(id);
    attachment.connector = connector;
    return this.#told(attachment);
  }

  async completeAttachment(_credentials: Credentials, id: string): Promise<void> {
    this.#note(`complete attachment ${id}`);
    this.#attachment(id).isComplete = true;
  }

  async deleteAttachment(_credentials: Credentials, id: string): Promise<void> {
    this.#note(`DELETE attachment ${id}`);
    this.attachments.delete(id);
  }

  async rollDetaching(_credentials: Credentials, volumeId: string): Promise<void> {
    this.#note(`roll_detaching ${volumeId}`);
  }

  /** What was attached as the new volume is the old one's from now on. */
  async completeMigration(
    _credentials: Credentials,
    { volumeId, newVolumeId, isFailed }: Parameters<Cinder['completeMigration']>[1],
  ): Promise<string> {
    this.#note(`migration of ${volumeId} ${isFailed ? 'failed' : 'completed'}`);
    this.volumes.delete(newVolumeId);
    const migrationStatus = isFailed ? 'error' : 'success';
    this.volumes.set(volumeId, { ...this.#volume(volumeId), migrationStatus });
    if (isFailed) return volumeId;
    for (const [id, attachment] of this.attachments) {
      if (attachment.volumeId === newVolumeId) this.attachments.set(id, { ...attachment, volumeId });
    }
    return volumeId;
  }

  async reimageVolume(
    _credentials: Credentials,
    { volumeId, imageId }: { readonly volumeId: string; readonly imageId: string },
  ): Promise<void> {
    this.#note(`reimage ${volumeId} with ${imageId}`);
    this.onReimage(volumeId);
  }

  #told({ id, volumeId, connector }: Attachment): CinderAttachment {
    if (connector === null) return { id, connectionInfo: {} };
    const own = { driver_volume_type: 'nfs', export: 'server:/share', name: `volume-${volumeId}`, format: 'raw' };
    return { id, connectionInfo: { ...own, attachment_id: id, ...this.extraConnection } };
  }

  #volume(id: string): CinderVolume {
    const volume = this.volumes.get(id);
    if (!volume) throw absent(`volume ${id}`);
    return volume;
  }

  #attachment(id: string): Attachment {
    const attachment = this.attachments.get(id);
    if (!attachment) throw absent(`attachment ${id}`);
    return attachment;
  }

  #note(request: string): void {
    this.requests.push(request);
    const index = this.#failures.findIndex(({ match }) => match.test(request));
    const [failure] = index < 0 ? [] : this.#failures.splice(index, 1);
    if (failure) throw failure.error;
  }
}

function absent(what: string): OpenStackError {
  return new OpenStackError(`volumev3: no ${what}`, { status: 404 });
}
