// A machine on which a daemon is killed between two commands.
import type { Host } from '#src/host/host.ts';

/** Nothing happens any more from the first command on that matches, after `skipped` others that do. */
export function dying(host: Host, at: RegExp, skipped = 0): { readonly host: Host; readonly died: Promise<void> } {
  let left = skipped;
  const { promise: died, resolve } = Promise.withResolvers<void>();
  const forever = Promise.withResolvers<never>().promise;
  const run: Host['run'] = (argv, options) => {
    if (!at.test(argv.join(' ')) || left-- > 0) return host.run(argv, options);
    resolve();
    return forever;
  };
  const get = (target: Host, name: string | symbol): unknown => {
    if (name === 'run') return run;
    const value: unknown = Reflect.get(target, name);
    return typeof value === 'function' ? (value.bind(target) as unknown) : value;
  };
  return { host: new Proxy(host, { get }), died };
}
