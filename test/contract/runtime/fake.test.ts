// The fake runtime keeps the runtime contract.
import { describe } from 'vitest';
import { FakeRuntime } from '#test/fakes/fake-runtime.ts';
import { PLAIN_SPEC, runtimeContract, type RuntimeUnderTest } from './runtime-contract.ts';

describe('the fake runtime', () => {
  runtimeContract(async (): Promise<RuntimeUnderTest> => {
    const runtime = new FakeRuntime();
    const container = async (name: string) => {
      const one = { name, configPath: `/${name}/lxc.conf`, logPath: `/${name}/lxc.log`, consoleLogPath: '/console' };
      await runtime.writeConfig(one, PLAIN_SPEC);
      return one;
    };
    return {
      runtime,
      container,
      ready: () => Promise.resolve(),
      async broken(name) {
        runtime.failures.set(name, 'no init');
        return container(name);
      },
      async [Symbol.asyncDispose]() {},
    };
  });
});
