// Images of running instances, and backups, which are images of which only the newest are kept (section 5.6). They hold no
// lock of the instance: an upload may take hours, and a deletion does not wait for it.
import { messageOf } from '#src/lib/errors.ts';
import { Turns } from '#src/lib/turns.ts';
import { limited } from '#src/lib/wait.ts';
import type { RequestContext } from '#src/nova/context.ts';
import { isNova, novaException } from '#src/nova/exceptions.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { TASK_STATES } from '#src/nova/states.ts';
import { userCredentials } from '../network/credentials.ts';
import { transition } from '../transition.ts';
import type { ComputeServices } from '../types.ts';
import { uploadSnapshot } from './upload-snapshot.ts';
import { UNDO_LIMIT_MS } from '../undo-limit.ts';

type Instance = NovaObject<'Instance'>;

export interface BackupWish {
  readonly imageId: string;
  /** Backups of the same type replace each other. */
  readonly type: string;
  /** How many of them are kept. */
  readonly rotation: number;
}

interface Wanted {
  readonly context: RequestContext;
  readonly instance: Instance;
  readonly imageId: string;
  /** The task that the instance is in when its disk is read. */
  readonly task: string;
}

export class SnapshotOperations {
  readonly #services: ComputeServices;
  readonly #turns: Turns;
  readonly #running = new Map<string, AbortController>();

  constructor(services: ComputeServices) {
    this.#services = services;
    this.#turns = new Turns(services.config.build.maxConcurrentSnapshots);
  }

  async snapshot(context: RequestContext, instance: Instance, imageId: string, signal: AbortSignal): Promise<void> {
    const { conductor } = this.#services;
    const task = TASK_STATES.imageSnapshot;
    await this.#kept({ context, instance, imageId, task }, async () => {
      const expected = { expectedTaskState: TASK_STATES.imageSnapshotPending };
      await transition({ conductor, context }, instance, { task_state: task }, expected);
      await this.#take({ context, instance, imageId, task }, signal);
    });
  }

  async backup(
    context: RequestContext,
    instance: Instance,
    { imageId, ...kept }: BackupWish,
    signal: AbortSignal,
  ): Promise<void> {
    const wanted = { context, instance, imageId, task: TASK_STATES.imageBackup };
    await this.#kept(wanted, () => this.#take(wanted, signal));
    await this.#rotate(context, instance, kept, signal);
  }

  /** The instance is being deleted: its snapshot ends as if it had noticed that itself. */
  interrupt(uuid: string): void {
    this.#running.get(uuid)?.abort(novaException('InstanceNotFound', { instance_id: uuid }));
  }

  /** Whatever happens, no image stays that is not whole. An instance or image that is gone meanwhile is no failure. */
  async #kept({ context, instance, imageId }: Wanted, work: () => Promise<void>): Promise<void> {
    const { conductor, glance, log } = this.#services;
    const uuid = instance.get('uuid');
    try {
      await work();
    } catch (error) {
      await glance.deleteImage(userCredentials(context), imageId, limited(UNDO_LIMIT_MS)).catch((cause: unknown) => {
        log.warn('cannot delete the image of a failed snapshot', { instance: uuid, image: imageId, error: cause });
      });
      const reason = messageOf(error);
      if (isNova(error, 'ImageNotFound')) {
        log.warn('image disappeared during a snapshot', { instance: uuid, image: imageId, reason });
        await transition({ conductor, context }, instance, { task_state: null });
        return;
      }
      if (!isNova(error, 'InstanceNotFound', 'UnexpectedDeletingTaskStateError')) throw error;
      log.info('instance disappeared during its snapshot', { instance: uuid, image: imageId, reason });
    }
  }

  async #take(wanted: Wanted, outer: AbortSignal): Promise<void> {
    const uuid = wanted.instance.get('uuid');
    const controller = new AbortController();
    this.#running.set(uuid, controller);
    const signal = AbortSignal.any([outer, controller.signal]);
    try {
      await this.#turns.run(async () => {
        signal.throwIfAborted();
        await this.#read(wanted, signal);
      });
    } finally {
      if (this.#running.get(uuid) === controller) this.#running.delete(uuid);
    }
  }

  async #read({ context, instance, imageId, task }: Wanted, signal: AbortSignal): Promise<void> {
    const { virt, conductor, notifications } = this.#services;
    instance.set('power_state', await virt.powerState(instance.get('uuid'), signal));
    await conductor.save(context, instance);
    const moment = { name: 'snapshot', snapshotImageId: imageId } as const;
    notifications.moment(context, instance, { ...moment, phase: 'start' });
    await uploadSnapshot(
      this.#services,
      { context, instance, imageId, tasks: [task, TASK_STATES.imagePendingUpload, TASK_STATES.imageUploading] },
      signal,
    );
    const expected = { expectedTaskState: TASK_STATES.imageUploading };
    await transition({ conductor, context }, instance, { task_state: null }, expected);
    notifications.moment(context, instance, { ...moment, phase: 'end' });
  }

  /** One that cannot be deleted does not keep the others, and is told of in the end. */
  async #rotate(
    context: RequestContext,
    instance: Instance,
    { type, rotation }: Omit<BackupWish, 'imageId'>,
    signal: AbortSignal,
  ): Promise<void> {
    const { glance } = this.#services;
    const credentials = userCredentials(context);
    const wanted = { image_type: 'backup', backup_type: type, instance_uuid: instance.get('uuid') };
    const superfluous = (await glance.listImages(credentials, wanted, signal)).slice(rotation);
    const deletions = superfluous.map(({ id }) => glance.deleteImage(credentials, id, signal));
    const failed = (await Promise.allSettled(deletions)).find(({ status }) => status === 'rejected');
    if (failed?.status === 'rejected') throw failed.reason;
  }
}
