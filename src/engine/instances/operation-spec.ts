// What an operation on instances says about itself.
import type { OperationSpec } from '../types.ts';

const KINDS = ['containers', 'instances'];

export function operationSpec(
  description: string,
  project: string,
  names: readonly string[],
  kinds: readonly string[] = KINDS,
): OperationSpec {
  const resources = kinds.map((kind) => [kind, names.map((name) => `/1.0/${kind}/${name}`)] as const);
  return { class: 'task', description, project, resources: Object.fromEntries(resources) };
}
