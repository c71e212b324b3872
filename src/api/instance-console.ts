// /1.0/instances/NAME/console: sitting at it, and its log
import type { Static } from 'typebox';
import type { ApiApp } from './app.ts';
import { ApiError, operation, sync } from './envelope.ts';
import { type InstanceDeps, instanceOf } from './instance-of.ts';
import { raw } from './instance-logs.ts';
import { partial, pathParams, ProjectQuery } from './schema.ts';
import { Type } from './type.ts';

const MAX_SIZE = 0xffff;
const Params = pathParams('name');
const ConsoleBody = partial({
  type: Type.String({ description: 'console (the default); vga is for virtual machines' }),
  width: Type.Integer({ minimum: 0, maximum: MAX_SIZE }),
  height: Type.Integer({ minimum: 0, maximum: MAX_SIZE }),
  force: Type.Boolean({ description: 'Take it over from whoever is connected' }),
});

export const CONSOLE_EXTENSIONS = ['console', 'console_vga_type', 'console_force'] as const;

export function registerConsoleRoutes(app: ApiApp, prefix: string, deps: InstanceDeps): void {
  const { instances, console } = deps.instances;
  const path = `/1.0/${prefix}/:name/console`;

  app.post(
    path,
    {
      schema: {
        summary: 'Connect to the console of an instance',
        params: Params,
        body: ConsoleBody,
        querystring: ProjectQuery,
      },
      config: { async: true },
    },
    async (request, reply) => {
      requireConsole(request.body);
      const { width = 0, height = 0, force = false } = request.body;
      const size = width > 0 && height > 0 ? { size: { width, height } } : {};
      return operation(reply, deps.operations, console.start(instanceOf(request, deps), { ...size, force }));
    },
  );

  app.get(
    path,
    { schema: { summary: 'Get the console log of an instance', params: Params, querystring: ProjectQuery } },
    async (request, reply) => raw(reply, 'console.log').send(await instances.consoleLog(instanceOf(request, deps))),
  );

  app.delete(
    path,
    { schema: { summary: 'Clear the console log of an instance', params: Params, querystring: ProjectQuery } },
    async (request) => {
      await instances.clearConsoleLog(instanceOf(request, deps));
      return sync();
    },
  );
}

function requireConsole({ type = '' }: Static<typeof ConsoleBody>): void {
  if (type === 'vga') throw new ApiError(400, 'VGA console is only supported by virtual machines');
  if (type !== '' && type !== 'console') throw new ApiError(400, `Unknown console type "${type}"`);
}
