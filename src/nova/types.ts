// What compute/ sees of Nova's object model (nova-compute-contract sections 2 and 3).
import type { RequestContext } from './context.ts';
import type { NovaObject } from './objects/object.ts';
import type { ObjectName } from './objects/table.ts';

export interface SaveOptions {
  /** Compare-and-swap in the database; null in the list means "no task". Omitted: no check (section 3.5). */
  readonly expectedTaskState?: string | null | readonly (string | null)[];
  readonly expectedVmState?: string | null | readonly (string | null)[];
  readonly adminStateReset?: boolean;
}

/** Remotable methods, executed by nova-conductor (section 3.3). */
export interface Conductor {
  /** `object_class_action_versions`: returns the decoded result (NovaObject, list of them, or a plain value). */
  classMethod(
    context: RequestContext,
    call: {
      readonly object: ObjectName;
      readonly method: string;
      readonly args?: readonly unknown[];
      readonly kwargs?: Readonly<Record<string, unknown>>;
    },
  ): Promise<unknown>;
  /** `object_action`: sends `object` as it is (all set fields), applies the updates to it, returns the result. */
  objectMethod(
    context: RequestContext,
    object: NovaObject,
    call: {
      readonly method: string;
      readonly args?: readonly unknown[];
      readonly kwargs?: Readonly<Record<string, unknown>>;
    },
  ): Promise<unknown>;
  /** `save` with a sparse object: identity, changed fields and what section 3.5 wants with them. No call when unchanged. */
  save(context: RequestContext, object: NovaObject, options?: SaveOptions): Promise<void>;
}
