// What a new instance is made from, found by what the request names.
import { AppError } from '#src/lib/errors.ts';
import type { EngineContext } from '../context.ts';
import type { InstanceRecord } from '../db/records.ts';
import { refuseOnBlock } from './block-rules.ts';
import type { CopiedInstance } from './copy.ts';
import type { CreationSource } from './creation.ts';
import { instanceArrivalOf } from './migration-sink.ts';
import type { InstanceSource, NewInstanceRequest } from './requests.ts';
import type { InstanceSnapshots } from './snapshots.ts';
import type { Supervisor } from './supervisor.ts';

export interface SourceParts {
  readonly context: EngineContext;
  readonly snapshots: InstanceSnapshots;
  readonly supervisor: Supervisor;
}

export class CreationSources {
  readonly #parts: SourceParts;

  constructor(parts: SourceParts) {
    this.#parts = parts;
  }

  /** AppError with LXD's text for what is not there. */
  find(project: string, request: NewInstanceRequest): CreationSource {
    const { context } = this.#parts;
    const { source } = request;
    switch (source.type) {
      case 'none':
        return { type: 'none' };
      case 'copy':
        return { type: 'copy', ...this.#copied(project, request) };
      case 'image':
        return { type: 'image', image: context.images.resolve(project, imageSelector(source)) };
      case 'migration':
        this.#refuseRunningTarget(project, request.name, source);
        return { type: 'migration', arrival: instanceArrivalOf(source), baseImage: baseImageOf(request) };
      default:
        throw new AppError('invalid', `Unknown source type ${source.type}`);
    }
  }

  #copied(project: string, { name, source }: NewInstanceRequest): CopiedInstance {
    const { snapshots } = this.#parts;
    const { instanceOnly = false, allowInconsistent = false } = source;
    const from = source.project || project;
    const [instance = '', snapshotName] = (source.source ?? '').split('/', 2);
    if (instance === '') throw new AppError('invalid', 'Must specify a source instance');
    const record = this.#instance(from, instance);
    refuseOnBlock(record, 'copied');
    const whole = { record, instanceOnly, allowInconsistent };
    this.#refuseRunningTarget(project, name, source);
    if (snapshotName !== undefined) return { ...whole, snapshot: snapshots.get(record, snapshotName) };
    if (instance === name && from === project) {
      throw new AppError('conflict', 'Name and source name are the same');
    }
    return whole;
  }

  #instance(project: string, name: string): InstanceRecord {
    const record = this.#parts.context.database.instances.find(project, name);
    if (record) return record;
    const text = `Failed to fetch instance "${name}" in project "${project}": Instance not found`;
    throw new AppError('not_found', text);
  }

  #refuseRunningTarget(project: string, name: string, { refresh = false }: InstanceSource): void {
    const target = refresh ? this.#parts.context.database.instances.find(project, name) : undefined;
    if (target) refuseOnBlock(target, 'refreshed');
    if (target && this.#parts.supervisor.status(target.id) !== 'Stopped') {
      throw new AppError('invalid', 'Cannot refresh a running instance');
    }
  }
}

function baseImageOf({ config, source }: NewInstanceRequest): string {
  return config['volatile.base_image'] ?? source.baseImage ?? '';
}

/** What of a source says which image is meant. */
export function imageSelector({ alias, fingerprint, properties, server }: InstanceSource) {
  if (server !== undefined && server !== '') {
    throw new AppError('unsupported', 'Images of other servers are not supported as a source of instances');
  }
  if (alias !== undefined && alias !== '') return { alias };
  if (fingerprint !== undefined && fingerprint !== '') return { fingerprint };
  if (properties !== undefined) return { properties };
  throw new AppError('internal', 'Must specify one of alias, fingerprint or properties for init from image');
}
