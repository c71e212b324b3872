// The operations on instances as start-up and periodic tasks see them: remembers who was asked for what.
import type { InstanceOperations, MoveRecords, MoveStep } from '#src/compute/types.ts';
import type { RequestContext } from '#src/nova/context.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';

type Instance = NovaObject<'Instance'>;

export class FakeOperations implements InstanceOperations {
  /** Such as 'stop <uuid> clean'. */
  readonly calls: string[] = [];
  /** Uuids of builds that have come. */
  readonly building = new Set<string>();
  readonly #failing = new Set<string>();

  /** From now on that operation rejects. */
  fail(operation: keyof InstanceOperations): void {
    this.#failing.add(operation);
  }

  isBuilding(uuid: string): boolean {
    return this.building.has(uuid);
  }

  async stop(_context: RequestContext, instance: Instance, cleanShutdown: boolean): Promise<void> {
    this.#call('stop', instance, cleanShutdown ? ' clean' : '');
  }

  async start(_context: RequestContext, instance: Instance): Promise<void> {
    this.#call('start', instance);
  }

  async reboot(_context: RequestContext, instance: Instance, type: 'SOFT' | 'HARD'): Promise<void> {
    this.#call('reboot', instance, ` ${type}`);
  }

  async unpause(_context: RequestContext, instance: Instance): Promise<void> {
    this.#call('unpause', instance);
  }

  async pause(_context: RequestContext, instance: Instance): Promise<void> {
    this.#call('pause', instance);
  }

  async suspend(_context: RequestContext, instance: Instance): Promise<void> {
    this.#call('suspend', instance);
  }

  async resume(_context: RequestContext, instance: Instance): Promise<void> {
    this.#call('resume', instance);
  }

  async softDelete(_context: RequestContext, instance: Instance): Promise<void> {
    this.#call('softDelete', instance);
  }

  async restore(_context: RequestContext, instance: Instance): Promise<void> {
    this.#call('restore', instance);
  }

  async unrescue(_context: RequestContext, instance: Instance): Promise<void> {
    this.#call('unrescue', instance);
  }

  async undoRescue(_context: RequestContext, instance: Instance): Promise<void> {
    this.#call('undoRescue', instance);
  }

  async undoUnshelve(_context: RequestContext, instance: Instance): Promise<void> {
    this.#call('undoUnshelve', instance);
  }

  async terminate(_context: RequestContext, instance: Instance): Promise<void> {
    this.#call('terminate', instance);
  }

  async offloadShelved(_context: RequestContext, instance: Instance): Promise<void> {
    this.#call('offloadShelved', instance);
  }

  async completeDeletion(_context: RequestContext, instance: Instance): Promise<void> {
    this.#call('completeDeletion', instance);
  }

  async plugInterfaces(_context: RequestContext, instance: Instance): Promise<void> {
    if (this.#failing.has('plugInterfaces')) throw new Error(`plugInterfaces ${instance.get('uuid')} fails`);
  }

  async resumeSwaps(_context: RequestContext, instance: Instance): Promise<void> {
    this.#call('resumeSwaps', instance);
  }

  async resumeGuest(_context: RequestContext, instance: Instance): Promise<void> {
    this.#call('resumeGuest', instance);
  }

  async removeGuest(_context: RequestContext, instance: Instance): Promise<void> {
    this.#call('removeGuest', instance);
  }

  async abandonMove(_context: RequestContext, instance: Instance): Promise<void> {
    this.#call('abandonMove', instance);
  }

  async repeatMoveStep(_context: RequestContext, step: MoveStep, { instance }: MoveRecords): Promise<void> {
    this.#call('repeatMoveStep', instance, ` ${step}`);
  }

  cancelWaits(): void {
    this.calls.push('cancelWaits');
  }

  async drain(): Promise<void> {
    this.calls.push('drain');
  }

  #call(operation: keyof InstanceOperations, instance: Instance, detail = ''): void {
    this.calls.push(`${operation} ${instance.get('uuid')}${detail}`);
    if (this.#failing.has(operation)) throw new Error(`${operation} ${instance.get('uuid')} fails`);
  }
}
