// The instance that a request names.
import type { FastifyRequest } from 'fastify';
import type { Engine } from '#src/engine/engine.ts';
import type { InstancesOfEngine } from '#src/engine/instances/create-instances.ts';
import type { InstanceInfo } from '#src/engine/instances/instances.ts';
import { projectOf } from './project.ts';

export type InstanceDeps = Pick<Engine<InstancesOfEngine>, 'context' | 'operations' | 'instances'>;

/** AppError 'not_found' with LXD's text. */
export function instanceOf(request: FastifyRequest, { instances }: Pick<InstanceDeps, 'instances'>): InstanceInfo {
  const { name } = request.params as { readonly name: string };
  return instances.instances.get(projectOf(request), name);
}
