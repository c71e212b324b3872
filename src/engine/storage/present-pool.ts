// A pool that is open may be taken away under the daemon: unmounted, exported, a disk of it gone. Its driver looks first.
import type { StorageDriver } from '#drivers/storage/driver.ts';

/** What would work on an empty place, take absence for success, or wait for a device that does not answer. */
const GUARDED = /^(?:(?:create|delete|rename|copy|restore|mount|resize|configure)\w*|withFolder|poolUsage)$/u;
const UNGUARDED = new Set(['createPool']);

/** The driver, each of whose methods that rely on the pool calls `check` before. */
export function presentPool(driver: StorageDriver, check: () => Promise<void>): StorageDriver {
  const guard =
    (method: (...args: unknown[]) => unknown) =>
    async (...args: unknown[]) => {
      await check();
      return method.apply(driver, args);
    };
  return new Proxy(driver, {
    get(target, key) {
      const value: unknown = Reflect.get(target, key, target);
      if (typeof value !== 'function') return value;
      const method = value as (...args: unknown[]) => unknown;
      const isGuarded = typeof key === 'string' && GUARDED.test(key) && !UNGUARDED.has(key);
      return isGuarded ? guard(method) : method.bind(target);
    },
  });
}
