// Where something is sent that leaves for another server: the target of a push (lxd-engine-contract section 2.9).
import type { Static } from 'typebox';
import type { PeerOperation } from '#src/engine/migration/connections.ts';
import { partial, StringMap } from './schema.ts';
import { Type } from './type.ts';

export const MigrationTarget = partial({ operation: Type.String(), certificate: Type.String(), secrets: StringMap });

/** Empty: the other end connects. */
export function migrationTarget({ target }: { readonly target?: Static<typeof MigrationTarget> }): {
  readonly target?: PeerOperation;
} {
  if (!target) return {};
  const { operation = '', certificate = '', secrets = {} } = target;
  return { target: { operation, certificate, secrets } };
}
