from rest_framework import serializers, status
from rest_framework.response import Response
from rest_framework.views import APIView
from umbel.result import AsyncResult

from .tasks import add, boom, flaky, send_email_task


class Mail(serializers.Serializer):
    subject = serializers.CharField()
    message = serializers.CharField()
    recipient_list = serializers.ListField(child=serializers.EmailField(), allow_empty=False)


class SendEmail(APIView):
    """Answers at once; the worker sends the mail."""

    def post(self, request):
        mail = Mail(data=request.data)
        mail.is_valid(raise_exception=True)
        result = send_email_task.delay(**mail.validated_data)
        return Response({"task_id": result.id}, status=status.HTTP_202_ACCEPTED)


class Result(APIView):
    """What is known of a task by its id."""

    def get(self, request, task_id):
        result = AsyncResult(str(task_id))
        # What is final stays: asked in this order, an answer that is ready has the final state.
        answer = {"task_id": result.id, "ready": result.ready(), "state": result.state}
        value = result.result
        answer["result"] = repr(value) if isinstance(value, BaseException) else value
        return Response(answer)


class Add(APIView):
    """Waits for the worker: fine for an example, not for a busy site."""

    def get(self, request):
        x, y = (serializers.IntegerField().run_validation(request.query_params.get(name)) for name in ("x", "y"))
        result = add.delay(x, y)
        return Response({"task_id": result.id, "result": result.get(timeout=10), "state": result.state})


class Boom(APIView):
    def post(self, request):
        return Response({"task_id": boom.delay().id}, status=status.HTTP_202_ACCEPTED)


class Flaky(APIView):
    def post(self, request):
        failures = serializers.IntegerField(min_value=0, max_value=3).run_validation(request.query_params.get("n", "1"))
        return Response({"task_id": flaky.delay(failures).id}, status=status.HTTP_202_ACCEPTED)
