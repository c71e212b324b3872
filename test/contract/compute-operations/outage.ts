// A service that is away, that answers 500, or that takes its time: the calls of its fakes, from a moment on.
import { OpenStackError } from 'keystone-client-ts';
import { AppError } from '#src/lib/errors.ts';
import { sleep } from '#src/lib/wait.ts';
import { RemoteError } from '#src/messaging/errors.ts';
import type { ComputeHarness } from '#test/fakes/compute-harness.ts';

export const SERVICES = ['engine', 'glance', 'neutron', 'cinder', 'placement', 'keystone', 'conductor'] as const;
export type ServiceName = (typeof SERVICES)[number];

/** What the clients of a service throw when it is not there, and when it answers 500; the conductor's is an exception of its own. */
export const FAULTS = {
  'is down': () => new AppError('unavailable', 'connection refused'),
  'answers 500': (service: ServiceName) => {
    if (service !== 'conductor') return new OpenStackError(`${service}: 500`, { status: 500 });
    const kind = { class: 'DBConnectionError', module: 'oslo_db.exception' };
    return new RemoteError({ ...kind, message: 'conductor: 500', args: [], kwargs: {}, tb: [] });
  },
} as const;

/** What tests call, or what answers at once. */
const OURS =
  /^(add|fail|emit|checkFlavor|assertOffers|asPlacement|onLifecycle|start$|stop$|constructor|names|named|next|cast|reserve$|statusOf)/;

/** Calls that are more than one request after the other. */
const REQUESTS: Readonly<Record<string, number>> = {
  removeAllocations: 2,
  removeFromAllocations: 2,
  moveAllocations: 2,
};

interface Target {
  readonly object: object;
  readonly isHit: (args: readonly unknown[]) => boolean;
}

/** Tokens of users come with the message; those of service users Keystone makes. */
const needsKeystone = ([credentials]: readonly unknown[]): boolean =>
  (credentials as { readonly kind?: unknown } | undefined)?.kind === 'service';

/** Computes call each other through the same broker. */
const isForConductor = ([request]: readonly unknown[]): boolean =>
  (request as { readonly target: { readonly topic: string } }).target.topic !== 'compute';

function targetsOf(service: ServiceName, computes: readonly ComputeHarness[]): readonly Target[] {
  const objects = (of: (harness: ComputeHarness) => readonly object[], isHit: Target['isHit'] = () => true) =>
    [...new Set(computes.flatMap(of))].map((object) => ({ object, isHit }));
  if (service === 'engine') return objects(({ virt }) => [virt, virt.moves]);
  if (service === 'conductor') return objects(({ plane }) => [plane], isForConductor);
  if (service !== 'keystone') return objects((harness) => [harness[service]]);
  return [
    ...objects(({ placement }) => [placement]),
    ...objects(({ neutron, glance, cinder }) => [neutron, glance, cinder], needsKeystone),
  ];
}

export class Outage {
  calls = 0;
  #failFrom = Number.POSITIVE_INFINITY;
  #delayMs = 0;
  readonly #fault: () => Error;

  constructor(service: ServiceName, computes: readonly ComputeHarness[], fault: (service: ServiceName) => Error) {
    this.#fault = () => fault(service);
    for (const target of targetsOf(service, computes)) this.#wrap(target);
  }

  #wrap({ object, isHit }: Target): void {
    const prototype = Object.getPrototypeOf(object) as object;
    for (const [name, { value }] of Object.entries(Object.getOwnPropertyDescriptors(prototype))) {
      if (typeof value !== 'function' || OURS.test(name)) continue;
      // another outage may have wrapped it already
      const method = Reflect.get(object, name) as (...args: unknown[]) => unknown;
      Object.defineProperty(object, name, {
        configurable: true,
        value: async (...args: unknown[]) => {
          if (isHit(args))
            await this.#suffer(
              REQUESTS[name] ?? 1,
              args.findLast((one) => one instanceof AbortSignal),
            );
          return await method.apply(object, args);
        },
      });
    }
  }

  async #suffer(requests: number, signal: AbortSignal | undefined): Promise<void> {
    this.calls += 1;
    if (this.calls > this.#failFrom) throw this.#fault();
    for (let request = 0; this.#delayMs > 0 && request < requests; request += 1) await sleep(this.#delayMs, signal);
  }

  begin(afterCalls = 0): void {
    this.calls = 0;
    this.#failFrom = afterCalls;
  }

  /** Every answer takes so long. */
  slow(delayMs: number): void {
    this.calls = 0;
    this.#delayMs = delayMs;
  }

  heal(): void {
    this.#failFrom = Number.POSITIVE_INFINITY;
    this.#delayMs = 0;
  }
}
