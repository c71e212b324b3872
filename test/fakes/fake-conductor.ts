// The conductor client in memory: answers by `Object.method`, and remembers every call that would have gone out.
import type { RequestContext } from '#src/nova/context.ts';
import type { NovaObject } from '#src/nova/objects/object.ts';
import { createObject } from '#src/nova/objects/object.ts';
import type { ObjectName } from '#src/nova/objects/table.ts';
import type { Conductor, SaveOptions } from '#src/nova/types.ts';

export interface ConductorCall {
  readonly what: string;
  readonly context: RequestContext;
  readonly args: readonly unknown[];
  readonly kwargs: Readonly<Record<string, unknown>>;
  readonly object?: NovaObject;
  /** Of saves: the fields that changed, with their values. */
  readonly changes: Readonly<Record<string, unknown>>;
  readonly options?: SaveOptions;
}

type Answer = (call: ConductorCall) => unknown;

export class FakeConductor implements Conductor {
  readonly calls: ConductorCall[] = [];
  readonly #answers = new Map<string, Answer>();

  /** From now on; throw for an exception of Nova. */
  on(what: string, answer: Answer): this {
    this.#answers.set(what, answer);
    return this;
  }

  get names(): readonly string[] {
    return this.calls.map(({ what }) => what);
  }

  named(what: string): readonly ConductorCall[] {
    return this.calls.filter((call) => call.what === what);
  }

  async classMethod(context: RequestContext, call: Parameters<Conductor['classMethod']>[1]): Promise<unknown> {
    const { object, method, args = [], kwargs = {} } = call;
    return await this.#answer({ what: `${object}.${method}`, context, args, kwargs, changes: {} });
  }

  async objectMethod(
    context: RequestContext,
    object: NovaObject,
    call: Parameters<Conductor['objectMethod']>[2],
  ): Promise<unknown> {
    const { method, args = [], kwargs = {} } = call;
    const changes = changesOf(object);
    object.resetChanges();
    return await this.#answer({ what: `${object.objectName}.${method}`, context, args, kwargs, object, changes });
  }

  async save(context: RequestContext, object: NovaObject, options: SaveOptions = {}): Promise<void> {
    const changes = changesOf(object);
    if (Object.keys(changes).length === 0) return;
    await this.#answer({
      what: `${object.objectName}.save`,
      context,
      args: [],
      kwargs: {},
      object,
      changes,
      options,
    });
    object.resetChanges();
  }

  async #answer(call: ConductorCall): Promise<unknown> {
    this.calls.push(call);
    await Promise.resolve();
    return await this.#answers.get(call.what)?.(call);
  }
}

function changesOf(object: NovaObject): Record<string, unknown> {
  const data = object.toPrimitive({ fields: object.changes() })['nova_object.data'];
  return Object.fromEntries(object.changes().map((field) => [field, data[field]]));
}

/** A list object such as InstanceList, of its items. */
export function listOf(name: ObjectName & `${string}List`, objects: readonly NovaObject[]): NovaObject {
  return createObject(name, { objects } as never);
}
