"""The kernel that a notebook is run in: this interpreter's, ended by signals, in clean folders."""

from __future__ import annotations

import asyncio
import atexit
import contextlib
import signal
from typing import Any

from ipykernel.kernelspec import RESOURCES, get_kernel_dict
from jupyter_client.kernelspec import KernelSpec
from jupyter_client.manager import AsyncKernelManager
from nbclient import NotebookClient


class OwnKernel(AsyncKernelManager):
    """Starts a kernel of this interpreter, whatever Jupyter finds first under its name."""

    @property
    def kernel_spec(self) -> KernelSpec:
        return KernelSpec(resource_dir=RESOURCES, **get_kernel_dict())


class Client(NotebookClient):
    """Executes a notebook in such a kernel, and leaves none behind however that ends.

    By itself nbclient kills the kernel at the first signal, and cannot do so while it starts. Here
    the first Ctrl-C lets a running cell end with what it has. Whatever comes before the first cell,
    a second Ctrl-C, and SIGTERM end at once. ``stopped_by`` is the last signal that came.
    """

    def __init__(self, notebook: Any, **options: Any) -> None:
        super().__init__(notebook, kernel_manager_class=OwnKernel, **options)
        self.stopped_by: signal.Signals | None = None
        self._is_ready = False
        self._stops: list[asyncio.Future[None]] = []  # the loop keeps no reference to a task

    async def async_execute(self, *arguments: Any, **options: Any) -> Any:
        """Execute all cells.

        Raises:
            asyncio.CancelledError: if a signal came before the first cell.
        """
        self._task = asyncio.current_task()
        try:
            return await super().async_execute(*arguments, **options)
        finally:
            for number in (signal.SIGINT, signal.SIGTERM):
                with contextlib.suppress(RuntimeError):
                    asyncio.get_running_loop().remove_signal_handler(number)
            if self.km is not None:  # it was stopped while it started
                await self._kill()
                await self._async_cleanup_kernel()
            atexit.unregister(self._cleanup_kernel)

    async def async_start_new_kernel(self, **options: Any) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            # Windows' event loop takes no handlers; there Ctrl-C comes as a KeyboardInterrupt.
            with contextlib.suppress(RuntimeError):
                asyncio.get_running_loop().add_signal_handler(number, self._stop, number)
        await super().async_start_new_kernel(**options)

    async def async_start_new_kernel_client(self) -> Any:
        client = await super().async_start_new_kernel_client()
        self._is_ready = True
        return client

    def _stop(self, number: signal.Signals) -> None:
        if not self._is_ready:
            assert self._task is not None
            self._task.cancel()
        else:
            at_once = self.stopped_by is not None or number == signal.SIGTERM
            self._stops.append(asyncio.ensure_future(self._stop_cell(at_once)))
        self.stopped_by = number

    async def _stop_cell(self, at_once: bool) -> None:
        with contextlib.suppress(RuntimeError):  # the kernel may be gone by now
            if at_once:
                await self._kill()
            elif self.km is not None:
                await self.km.interrupt_kernel()

    async def _kill(self) -> None:
        # Jupyter's own way interrupts before it kills, and a kernel that starts prints a traceback.
        if self.km is not None and self.km.provisioner is not None:
            await self.km.provisioner.kill()
            await self.km.provisioner.wait()
